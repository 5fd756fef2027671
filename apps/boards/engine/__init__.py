"""How a change of a task is written, and how an agent works on one."""
