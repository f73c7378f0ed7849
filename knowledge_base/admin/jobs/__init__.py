"""Running long calls in the background, recorded in Redis."""
