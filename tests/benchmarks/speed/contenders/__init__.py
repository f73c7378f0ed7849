"""Those who are measured: each module has an ``open`` that gives a ``Contender``."""
