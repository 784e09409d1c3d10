"""How fast a PTM service is on this machine, beside what its model can do at best and what is usual.

Everything that is compared is measured in one run and in turns, since machines are not the same from minute to minute:
a ratio is taken of each pair of neighbours, and the median of those counts.
"""
