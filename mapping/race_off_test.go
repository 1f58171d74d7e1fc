//go:build !race

package mapping

const racing = false
