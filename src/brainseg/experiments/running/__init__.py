"""Trainings as DVC experiments: one interface, whoever computes.

Holds the interface, this machine, a Ray cluster and what travels to its nodes, and the table on the screen.
"""
