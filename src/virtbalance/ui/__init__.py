"""What people look at: tables and lines."""
