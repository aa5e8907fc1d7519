"""The console: pages on which operators see what the fleet does, and mend what has failed.

Rendered here and readable without JavaScript. What it does to tasks, lanes and documents is done by
the same functions as at the command line (``producers/control``).
"""
