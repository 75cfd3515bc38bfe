# A wrong expectation is a failure
device pmtimer
inl 0x408 = 1
