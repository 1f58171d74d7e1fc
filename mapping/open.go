package mapping

// Open tells whether the bind carries the whole register, member by field, so that its address
// going is the register going.
func (b *Bind) Open() bool { return b.identity }
