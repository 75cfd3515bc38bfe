# And a line without its end
device pmtimer
inl 0x408 = 0
device "pmtimer
