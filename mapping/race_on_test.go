//go:build race

package mapping

const racing = true // pools drop things at random, so that allocations say nothing
