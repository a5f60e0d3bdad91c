"""What is made of several trained networks: one model, its numbers, a released file, and lessons for another."""
