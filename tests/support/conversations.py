"""Facts about things that resemble each other, and questions that say too little without those before them."""

from __future__ import annotations

HANDBOOK = {
    "loans": "A loan from the town library is for four weeks and can be renewed twice.",
    "fines": "The town library takes a fine of ten cents for each day that a book is late.",
    "pool-hours": "The swimming pool is open from seven in the morning until nine in the evening.",
    "pool-price": "A ticket for the swimming pool costs four euros, for children two.",
    "museum-hours": "The railway museum is open from ten until five and closed on Mondays.",
    "museum-price": "Admission to the railway museum is six euros; children need no ticket.",
    "museum-founder": "The railway museum was founded in 1931 by the engineer Clara Holt.",
    "library-founder": "The town library was founded in 1887 by the printer Samuel Reed.",
    "garden-founder": "The botanical garden was laid out in 1902 by the physician Ida Brandt.",
    "garden-price": "The botanical garden costs nothing to enter.",
}

FOLLOW_UPS = [
    ("When is the railway museum open?", "How much does it cost?", "museum-price"),
    ("When is the swimming pool open?", "And what does it cost?", "pool-price"),
    ("What does the railway museum cost?", "Who founded it?", "museum-founder"),
    ("How long is a loan from the town library?", "Who founded it?", "library-founder"),
    ("What does the botanical garden cost?", "Who made it?", "garden-founder"),
    ("Who founded the railway museum?", "And when is it open?", "museum-hours"),
    ("What does a ticket for the swimming pool cost?", "What about the opening hours?", "pool-hours"),
    ("Who laid out the botanical garden?", "What is the price?", "garden-price"),
]
"""A question, one that follows it, and the fact that answers the second."""
