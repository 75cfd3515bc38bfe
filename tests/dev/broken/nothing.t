# So is a script that checks nothing
device pmtimer
inl 0x408
