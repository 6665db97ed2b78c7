"""What every published figure of gpbo came from; not part of the wheel. README.md says how to run it."""
