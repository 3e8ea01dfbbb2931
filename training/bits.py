"""Which bits a probe computes: a number that every probe and result row states.

``BITS_VERSION`` numbers the arithmetic behind an outcome: the random streams of (seed, repeat, n)
and the rounding of the native engine. Equal probes of one version have the same outcome to the
last bit; those of two versions are different draws, which one log may hold side by side but nothing
may reuse or average together. Whoever changes what a probe computes, in any bit, raises the number
and makes all results anew.

1: the bits depended on the machine; its CSVs had no column for the version.
2: the same bits on every machine.
"""

BITS_VERSION = 2
