"""A long run of mixed load with faults: what must stay flat, does it?"""
