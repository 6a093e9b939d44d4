"""Tasks: plain words that every room speaks.

- `delayed`: the delayed call, and the check that an item is one.
- `placeholders`: what stands in place of a task whose result is known already, and of a result
  that is not there.
- `description`: words for a task in messages.
"""
