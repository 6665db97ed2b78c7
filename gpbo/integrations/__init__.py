"""Other libraries, served by gpbo's own engine."""
