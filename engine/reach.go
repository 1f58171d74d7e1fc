package engine

// Trimmed is what the log does not hold any more, though it was applied: who lacks any of it is given the state.
func (e *Engine) Trimmed() QStateVector { return e.floor.Load().vector }
