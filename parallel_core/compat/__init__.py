"""Others' names for what is here: one module for each origin; they re-export and hold no logic."""
