"""Recipes: functions that return one complete, frozen configuration each."""
