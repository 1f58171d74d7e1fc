package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/spooksystems/gateway/gateway"
	"github.com/spooksystems/gateway/mapping"
)

func schemaVerb(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the configuration language",
		Long: `Prints every block and attribute of gateway.hcl and of mappings, the types, rules, codecs and
functions, and what each protocol adds: as a list, or with --json for editors and other tools. It is
made of the tables that files are read by.`,
		Example: "  spookgw schema --json | jq '.mapping.functions[].name'",
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			s := gateway.Describe(protocols)
			if a.json {
				return a.print(s)
			}
			fmt.Fprintln(a.out, "gateway.hcl")
			a.block("  ", &s.Gateway)
			fmt.Fprintln(a.out, "mappings")
			for i := range s.Mapping.Blocks {
				a.block("  ", &s.Mapping.Blocks[i])
			}
			for _, p := range s.Protocols {
				fmt.Fprintf(a.out, "protocol %q\n", p.Name)
				a.attributes("  wrapper: ", p.Wrapper)
				a.attributes("  bind: ", p.Bind)
			}
			var names []string
			for _, f := range s.Mapping.Functions {
				names = append(names, f.Name)
			}
			fmt.Fprintf(a.out, "types: %s\ncodecs: %s\nfunctions: %s\n", strings.Join(s.Mapping.Types, " "), strings.Join(s.Mapping.Codecs, " "), strings.Join(names, " "))
			return nil
		},
	}
}

func (a *app) block(indent string, b *mapping.BlockForm) {
	if b.Type != "" {
		line := indent + b.Type
		for _, l := range b.Labels {
			line += fmt.Sprintf(" %q", strings.ToUpper(l))
		}
		fmt.Fprintln(a.out, line)
		indent += "  "
	}
	a.attributes(indent, b.Attributes)
	for i := range b.Blocks {
		a.block(indent, &b.Blocks[i])
	}
}

func (a *app) attributes(indent string, list []mapping.AttributeForm) {
	for _, f := range list {
		line := fmt.Sprintf("%s%s: %s", indent, f.Name, f.Type)
		if len(f.Values) > 0 {
			line += " (" + strings.Join(f.Values, ", ") + ")"
		}
		if f.Default != nil {
			line += fmt.Sprintf(", default %v", f.Default)
		}
		if f.Required {
			line += ", required"
		}
		fmt.Fprintln(a.out, line+": "+f.Doc)
	}
}
