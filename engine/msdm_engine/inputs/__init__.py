"""Masks and pictures from a user's files, checked before they are used."""
