"""The routes, a module for each resource; thin: views answer, and intake or control do."""
