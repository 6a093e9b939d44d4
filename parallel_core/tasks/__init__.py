"""Tasks: plain words that every room speaks.

- `delayed`: the delayed call, and the check that an item is one.
- `known`: what stands in the stream of tasks for a task whose result is known already.
- `placeholders`: what stands in place of a result that is not there.
- `description`: words for a task in messages.
"""
