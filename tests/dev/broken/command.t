# The runner must refuse what it does not know
device pmtimer
inl 0x408 = 0
frobnicate 1
