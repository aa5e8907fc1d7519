"""Infrastructure APIs, behind one port."""
