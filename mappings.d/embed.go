// Package mappings holds the example mappings that ship with the program: `spookgw demo` runs
// them, `spookgw init` starts from them.
package mappings

import "embed"

// FS has the *.hcl files of this folder.
//
//go:embed *.hcl
var FS embed.FS
