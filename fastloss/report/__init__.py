"""Results, plans and listings as text; the progress bar."""
