"""Arrivals: new rows of a data set, checked before they are accepted, and compared with the train rows."""
