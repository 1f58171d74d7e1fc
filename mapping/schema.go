package mapping

import (
	"fmt"
	"slices"
	"sort"

	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
)

// A Language is the mapping language in a form for tools, made of the tables that Load works by.
type Language struct {
	Blocks    []BlockForm    `json:"blocks"` // of a mapping file
	Types     []string       `json:"types"`
	Rules     []RuleForm     `json:"rules"`
	Codecs    []string       `json:"codecs"`
	Functions []FunctionForm `json:"functions"`
	Names     NameForms      `json:"names"` // in expressions, beside the captures
	Later     []string       `json:"later"` // refused by name, as of a later version
}

// A BlockForm is a block.
type BlockForm struct {
	Type       string          `json:"type"`
	Labels     []string        `json:"labels"`
	Once       bool            `json:"once,omitempty"` // at most one of it
	Attributes []AttributeForm `json:"attributes"`
	Blocks     []BlockForm     `json:"blocks"`
	Later      []string        `json:"later,omitempty"`
}

// An AttributeForm is an attribute of a block. Type is in words: "string", "expression", "map of expressions", …
type AttributeForm struct {
	Name     string   `json:"name"`
	Type     string   `json:"type"`
	Default  any      `json:"default,omitempty"`
	Values   []string `json:"values,omitempty"`
	Min      int64    `json:"min,omitempty"`
	Max      int64    `json:"max,omitempty"`
	Required bool     `json:"required,omitempty"`
	Doc      string   `json:"doc"`
}

// A RuleForm is a collapse rule.
type RuleForm struct {
	Name  string `json:"name"`
	Usage string `json:"usage"`
}

// A FunctionForm is a function of expressions.
type FunctionForm struct {
	Name   string   `json:"name"`
	TwoWay bool     `json:"two_way"` // may stand in map
	Usage  string   `json:"usage,omitempty"`
	Params []string `json:"params,omitempty"`
	Rest   string   `json:"rest,omitempty"` // name of the parameter that takes any number
}

// NameForms are the names that expressions know.
type NameForms struct {
	Always  []string `json:"always"`
	Inward  []string `json:"inward"`
	Outward []string `json:"outward"`
}

// attributeForms says what each attribute is; which there are stands in the schemas.
var attributeForms = map[string]map[string]AttributeForm{
	"register": {
		"commit":      {Type: `"auto", "manual" or a duration`, Default: "auto", Doc: "when writes collapse"},
		"fields":      {Type: "map of types", Doc: "the register's fields; closes it"},
		"domain":      {Type: "string", Doc: "which of the gateway's domains its registers are of; default: the first"},
		"fold":        {Type: "bool", Default: false, Doc: "names that differ in case are one"},
		"group":       {Type: "template", Doc: "registers whose group has one name collapse as one"},
		"history":     {Type: "age, or { age, count }", Default: "30d", Doc: "how long history is kept"},
		"match":       {Type: "map of regular expressions", Doc: "narrows captures, of the text in the register's name"},
		"on_conflict": {Type: "string", Default: "update", Values: []string{"update", "delete"}, Doc: "who wins of a delete and a write that did not know of each other"},
		"type":        {Type: "type", Doc: "of a register that is one value"},
		"writers":     {Type: "list of writers", Doc: "who may write; all others are refused"},
	},
	"bind": {
		"codec":      {Type: "codec", Default: "json", Doc: "the form of the payload"},
		"create":     {Type: "map of expressions", Doc: "members written only when the gateway makes the address"},
		"delete":     {Type: "string, or map of expressions", Default: "clear", Values: []string{"clear", "ignore"}, Doc: "what it means that an address is gone; or the members that say of a document that its register is gone"},
		"each":       {Type: "payload, or a member of it", Doc: "the list in the payload whose rows are registers of their own"},
		"every":      {Type: "duration", Doc: "an address is told at most so often"},
		"max_change": {Type: "share or number", Default: "50%", Doc: "how much one first contact, or one document, may change or delete before somebody approves"},
		"poll":       {Type: "duration", Doc: "how often a server without a feed is asked"},
		"read":       {Type: "list of who", Doc: "who may read at its addresses, of those who may anyway"},
		"reply":      {Type: "expression", Doc: "the answer to a write"},
		"site":       {Type: "string", Doc: "the gateway that tells of changes made at any; only with events, or in a command. Without it each tells of its own"},
		"write":      {Type: "list of who", Doc: "who may write at its addresses, of those who may anyway"},
		"direction":  {Type: "string", Default: "both", Values: []string{"both", "in", "out"}, Doc: "which ways it carries"},
		"events":     {Type: "bool", Default: false, Doc: "every change is told, in order, instead of the newest state"},
		"first":      {Type: "string", Values: []string{"source", "register"}, Doc: "who wins at first contact where both have a value"},
		"in":         {Type: "map of expressions, or an expression", Doc: "fields that are only read"},
		"key":        {Type: "map of expressions", Doc: "captures of the register's name that the address does not hold"},
		"map":        {Type: "map of two-way expressions, or one", Doc: "which part of the payload is which field, both ways"},
		"match":      {Type: "map of regular expressions", Doc: "narrows captures"},
		"out":        {Type: "map of expressions, or an expression", Doc: "members that are only written"},
		"register":   {Type: "template", Doc: "which registers; only outside of a register block, and needed there"},
		"when":       {Type: "expression", Default: true, Doc: "false passes by, or isn't sent"},
		"wrapper":    {Type: "list of strings", Doc: "which wrappers of the protocol"},
	},
	"ignore": {
		"match":   {Type: "map of regular expressions", Doc: "narrows captures"},
		"wrapper": {Type: "list of strings", Doc: "which wrappers of the protocol"},
	},
	"test": {
		"given":   {Type: "map of values", Doc: "registers that exist"},
		"now":     {Type: "time", Default: "2026-01-01T00:00:00Z", Doc: "where the clock stands"},
		"refused": {Type: "string", Doc: "a part of the reason why something is refused"},
		"send":    {Type: "operation, or a list", Doc: "what happens"},
		"told":    {Type: "map of addresses", Doc: "who is told, by wrapper or protocol"},
		"want":    {Type: "map of values", Doc: "registers afterwards"},
	},
}

// Describe gives the language as it is with these protocols.
func Describe(protocols []wrappers.Protocol) Language {
	var l Language
	bind := Form(diag.Block{Type: "bind", Labels: []string{"protocol", "address"}}, bindSchema(&wrappers.Protocol{}), attributeForms["bind"])
	bind.Later = bindLaterOf(protocols)
	outside := bind
	outside.Attributes = append(slices.Clone(bind.Attributes), attributeForms["bind"]["register"].named("register", true))
	for _, b := range fileSchema.Blocks {
		switch b.Type {
		case "register":
			r := Form(b, registerSchema, attributeForms["register"])
			r.Blocks = []BlockForm{bind}
			l.Blocks = append(l.Blocks, r)
		case "bind":
			l.Blocks = append(l.Blocks, outside)
		case "ignore":
			l.Blocks = append(l.Blocks, Form(b, ignoreSchema, attributeForms["ignore"]))
		case "test":
			l.Blocks = append(l.Blocks, Form(b, testSchema, attributeForms["test"]))
		}
	}
	l.Later = append(l.Later, fileSchema.Later...)
	for n := range typeNames {
		l.Types = append(l.Types, n)
	}
	l.Types = append(l.Types, `enum("a", "b")`, "list(T)", "object({ name = T })")
	sort.Strings(l.Types)
	for i, n := range lattice.RuleNames() {
		l.Rules = append(l.Rules, RuleForm{n, ruleUsage[i]})
	}
	for _, n := range codecNames() {
		l.Codecs = append(l.Codecs, codecs[n].usage)
	}
	for _, n := range functionNames() {
		f := FunctionForm{Name: n}
		if two := twoWays[n]; two != nil {
			f.TwoWay, f.Usage = true, two.usage
		} else if one, ok := functions[n]; ok {
			for _, p := range one.Params() {
				f.Params = append(f.Params, p.Name)
			}
			if v := one.VarParam(); v != nil {
				f.Rest = v.Name
			}
		}
		l.Functions = append(l.Functions, f)
	}
	slices.SortFunc(l.Functions, func(a, b FunctionForm) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	always := (&scope{bind: &Bind{}}).names()
	l.Names.Always = always
	for w, into := range map[way]*[]string{inward: &l.Names.Inward, outward: &l.Names.Outward} {
		for _, n := range (&scope{bind: &Bind{}, way: w}).names() {
			if !slices.Contains(always, n) {
				*into = append(*into, n)
			}
		}
	}
	return l
}

// bindLaterOf are the attributes of binds that no protocol here has.
func bindLaterOf(protocols []wrappers.Protocol) (out []string) {
	for _, n := range bindLater {
		if !slices.ContainsFunc(protocols, func(p wrappers.Protocol) bool {
			return slices.ContainsFunc(p.Bind, func(s wrappers.Setting) bool { return s.Name == n })
		}) {
			out = append(out, n)
		}
	}
	return out
}

// Form is a block as its Schema has it, with what is known of its attributes.
func Form(b diag.Block, s diag.Schema, known map[string]AttributeForm) BlockForm {
	f := BlockForm{Type: b.Type, Labels: b.Labels, Once: b.Once, Attributes: []AttributeForm{}, Blocks: []BlockForm{}, Later: s.Later}
	if f.Labels == nil {
		f.Labels = []string{}
	}
	for _, n := range s.Attrs {
		f.Attributes = append(f.Attributes, known[n].named(n, slices.Contains(s.Need, n)))
	}
	return f
}

func (a AttributeForm) named(name string, required bool) AttributeForm {
	a.Name, a.Required = name, required
	return a
}

// SettingForm is an attribute that a protocol adds.
func SettingForm(s wrappers.Setting) AttributeForm {
	types := map[wrappers.SettingKind]string{
		wrappers.StringSetting: "string", wrappers.BoolSetting: "bool", wrappers.IntSetting: "int", wrappers.StringsSetting: "list of strings",
	}
	t, ok := types[s.Kind]
	if !ok {
		t = fmt.Sprintf("kind %d", s.Kind)
	}
	return AttributeForm{Name: s.Name, Type: t, Default: s.Default, Values: s.Enum, Min: s.Min, Max: s.Max, Doc: s.Doc}
}
