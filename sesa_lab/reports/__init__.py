"""Notebooks executed with parameters, and executed notebooks put into one HTML file that opens offline."""
