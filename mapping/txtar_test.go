package mapping

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/spooksystems/gateway/engine"
	"github.com/spooksystems/gateway/engine/lattice"
	"github.com/spooksystems/gateway/mapping/diag"
	"github.com/spooksystems/gateway/wrappers"
	"github.com/spooksystems/gateway/wrappers/ldap"
	"github.com/spooksystems/gateway/wrappers/sql"
)

var update = flag.Bool("update", false, "rewrite what testdata/*.txtar want")

// TestScripts runs testdata: mapping files, commands, and what they print.
//
//	in WRAPPER VERB ADDRESS [PAYLOAD]      what an operation means
//	out WRAPPER REGISTER STATE [PREVIOUS]  the payload at each place of a register
//	create WRAPPER REGISTER STATE          the same where the gateway makes the address
//	gone WRAPPER REGISTER [PREVIOUS]       the document of a register that is gone, where that is marked
//	rows WRAPPER REGISTER=STATE… [PREVIOUS] the document of these registers at the place of the first
//	lay WRAPPER REGISTER=STATE… [PREVIOUS] these registers laid over a document that may have others
//	reply WRAPPER VERB ADDRESS REGISTER STATE [PAYLOAD]  what a write is answered, behind which the register is STATE
//	places WRAPPER REGISTER                where a register appears
//	maps WRAPPER VERB ADDRESS
//	at WRAPPER ADDRESS
//	under WRAPPER PREFIX
//	check REGISTER FIELD VALUE
//	add REGISTER FIELD VALUE               check of an increment
//	clears REGISTER STATE                  per bind, what it maps inward
//	DOMAIN: COMMAND                        the same as one domain has it
//	rules                                  what the engine is told of the registers
//
// A payload may be hex:…, or esc:… with \n and the like, behind its media type in [ ].
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal(err, len(files))
	}
	more, _ := filepath.Glob("testdata/*/*.txtar")
	for _, name := range append(files, more...) {
		t.Run(strings.TrimSuffix(strings.TrimPrefix(name, "testdata/"), ".txtar"), func(t *testing.T) {
			ar, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got := runScript(t, ar)
			for i, f := range ar.Files {
				if f.Name != "want" {
					continue
				}
				if bytes.Equal(f.Data, []byte(got)) {
					return
				}
				if *update {
					ar.Files[i].Data = []byte(got)
					if err := os.WriteFile(name, txtar.Format(ar), 0o644); err != nil {
						t.Fatal(err)
					}
					return
				}
				t.Fatalf("got:\n%s\nwant:\n%s", got, f.Data)
			}
			t.Fatal("no want")
		})
	}
}

func scriptWrappers(t *testing.T, comment string) []WrapperInfo {
	known := map[string]wrappers.Protocol{"mqtt": topics, "http": paths, "dir": names, "sql": sql.Protocol, "ldap": ldap.Protocol}
	var out []WrapperInfo
	for _, line := range strings.Split(comment, "\n") {
		words := strings.Fields(line)
		if len(words) < 3 || words[0] != "wrapper" {
			continue
		}
		w := WrapperInfo{Protocol: known[words[1]], Name: words[2], Listens: true}
		for _, word := range words[3:] {
			k, v, _ := strings.Cut(word, "=")
			switch k {
			case "base":
				w.Base = v
			case "asked": // attached
				w.Listens, w.Upstream = false, true
			case "reaches":
				w.Reaches = strings.Split(v, ",")
			case "servers":
				w.Servers = strings.Split(v, ",")
			default:
				t.Fatalf("%q", line)
			}
		}
		out = append(out, w)
	}
	if out == nil {
		return standard()
	}
	return out
}

func runScript(t *testing.T, ar *txtar.Archive) string {
	var out strings.Builder
	in := Input{Wrappers: scriptWrappers(t, string(ar.Comment)), Later: []string{"ssh", "smb", "coap"}}
	in.People = &People{}
	for _, w := range in.Wrappers {
		in.People.Wrappers = append(in.People.Wrappers, w.Protocol.Name+"/"+w.Name)
	}
	for line := range strings.Lines(string(ar.Comment)) {
		switch words := strings.Fields(line); {
		case len(words) == 2 && words[0] == "domain":
			in.Domains = append(in.Domains, words[1])
		case len(words) == 2 && words[0] == "user":
			in.People.Users = append(in.People.Users, words[1])
		case len(words) == 2 && words[0] == "group":
			in.People.Groups = append(in.People.Groups, words[1])
		}
	}
	script := ""
	for _, f := range ar.Files {
		switch {
		case strings.HasSuffix(f.Name, ".hcl"):
			in.Files = append(in.Files, diag.File{Name: f.Name, Bytes: f.Data})
		case f.Name == "script":
			script = string(f.Data)
		}
	}
	set, diags := Load(in)
	diags.WriteText(&out, false, 100)
	if set == nil {
		return out.String()
	}
	for _, line := range strings.Split(script, "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		view := set
		do := line
		if name, rest, ok := strings.Cut(line, ": "); ok && slices.Contains(in.Domains, name) {
			view, do = set.Of(name), rest // as one domain has it
		}
		fmt.Fprintf(&out, "$ %s\n%s\n", line, command(t, view, do))
	}
	return out.String()
}

var scriptEnv = Env{
	Now: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
	New: func() string { return "fresh" },
	Register: func(name string) (engine.StateBlock, bool) {
		if name != "limits" {
			return engine.StateBlock{}, false
		}
		v, _ := lattice.ParseJSON([]byte(`{"high":100,"deep":{"a":1,"b":2}}`))
		return engine.StateBlock{Register: name, Exists: true, Value: v}, true
	},
}

func command(t *testing.T, set *Set, line string) string {
	word := func() string {
		w, rest, _ := strings.Cut(line, " ")
		line = strings.TrimSpace(rest)
		return w
	}
	verbs := map[string]wrappers.Verb{}
	for v := wrappers.Read; v <= wrappers.Message; v++ {
		verbs[v.String()] = v
	}
	payload := func(s string) wrappers.Payload {
		kind := ""
		if rest, ok := strings.CutPrefix(s, "["); ok && strings.Contains(rest, "]esc:") {
			kind, s, _ = strings.Cut(rest, "]")
		}
		raw := []byte(s)
		if js, ok := strings.CutPrefix(s, "row:"); ok {
			v, err := lattice.ParseJSON([]byte(js))
			if err != nil {
				t.Fatal(s, err)
			}
			p, err := rowCodec.encode(v, nil)
			if err != nil {
				t.Fatal(s, err)
			}
			raw = p.Raw
		}
		if h, ok := strings.CutPrefix(s, "hex:"); ok {
			var err error
			if raw, err = hex.DecodeString(h); err != nil {
				t.Fatal(err)
			}
		}
		if e, ok := strings.CutPrefix(s, "esc:"); ok {
			text, err := strconv.Unquote(`"` + strings.ReplaceAll(e, `"`, `\"`) + `"`)
			if err != nil {
				t.Fatal(s, err)
			}
			raw = []byte(text)
		}
		return wrappers.Payload{Raw: raw, Type: kind, Meta: map[string]string{"content-type": "x"}}
	}
	block := func(register, js string) engine.StateBlock {
		if js == "none" {
			return engine.StateBlock{Register: register}
		}
		return state(t, register, js)
	}
	switch cmd := word(); cmd {
	case "in":
		wrapper, verb, address := word(), verbs[word()], word()
		server := ""
		if s, a, ok := strings.Cut(address, "::"); ok {
			server, address = s, a
		}
		op := &wrappers.Operation{Verb: verb, Server: server, Address: address, Payload: payload(line), Who: wrappers.Who{Principal: "ann", Peer: "10.0.0.9"}}
		return show(set.In(wrapper, op, scriptEnv))
	case "out", "create":
		wrapper, register := word(), word()
		st := block(register, word())
		var prev *wrappers.Payload
		if line != "" {
			p := payload(line)
			prev = &p
		}
		var lines []string
		for _, p := range set.Places(wrapper, register) {
			pay, send, err := p.Bind.Out(p, st, prev, scriptEnv)
			if err == nil && cmd == "create" {
				pay, err = p.Bind.CreatePayload(p, st, pay, scriptEnv)
			}
			text := fmt.Sprintf("%q %s", pay.Raw, pay.Type)
			if p.Bind.codec == rowCodec || p.Bind.codec == entryCodec {
				v, _ := decodeCBOR(pay.Raw)
				text = "row:" + v.String()
			}
			if bytes.HasPrefix(pay.Raw, []byte("{")) || bytes.HasPrefix(pay.Raw, []byte("[")) {
				text = fmt.Sprintf("%s %s", pay.Raw, pay.Type)
			}
			switch {
			case err != nil:
				text = err.Error()
			case !send:
				text = "not sent"
			case p.Bind.Says() && !p.Bind.There(st):
				text = "not there"
			}
			var carried []string
			for _, f := range p.Bind.Mapped(register, st) {
				carried = append(carried, f.Field)
			}
			if a, ok := set.AddressOf(p, st); ok {
				p.Address = a
			} else {
				text = "no address"
			}
			lines = append(lines, fmt.Sprintf("%s: %s [%s]", p.Address, text, strings.Join(carried, " ")))
		}
		return strings.Join(lines, "\n")
	case "gone":
		wrapper, register := word(), word()
		var prev *wrappers.Payload
		if line != "" {
			p := payload(line)
			prev = &p
		}
		var lines []string
		for _, p := range set.Places(wrapper, register) {
			if p.Bind.Marks() && !p.Bind.Rows() {
				pay, err := p.Bind.OutGone(p, engine.StateBlock{Register: register}, prev, scriptEnv)
				lines = append(lines, fmt.Sprintf("%s: %s %v", p.Address, pay.Raw, err))
			}
		}
		return strings.Join(lines, "\n")
	case "rows", "lay":
		// The document at the place of a register with these states; of `lay`, over one that may have more rows.
		wrapper := word()
		var sts []engine.StateBlock
		var prev *wrappers.Payload
		for line != "" {
			w := word()
			if register, js, ok := strings.Cut(w, "="); ok {
				sts = append(sts, block(register, js))
				continue
			}
			p := payload(strings.TrimSpace(w + " " + line))
			prev, line = &p, ""
		}
		var lines []string
		for _, p := range set.Places(wrapper, sts[0].Register) {
			if !p.Bind.Rows() {
				continue
			}
			pay, err := p.Bind.OutRows(p, sts, cmd == "rows", prev, scriptEnv)
			text := fmt.Sprintf("%s %s", pay.Raw, pay.Type)
			if err != nil {
				text = err.Error()
			}
			lines = append(lines, p.Address+": "+text)
		}
		return strings.Join(lines, "\n")
	case "reply":
		wrapper, verb, address, register := word(), verbs[word()], word(), word()
		st := block(register, word())
		op := &wrappers.Operation{Verb: verb, Address: address, Payload: payload(line), Who: wrappers.Who{Principal: "ann", Peer: "10.0.0.9"}}
		p, err := set.Reply(wrapper, op, st, scriptEnv)
		if err != nil {
			return err.Error()
		}
		if p.Raw == nil {
			return "nothing"
		}
		return fmt.Sprintf("%q %s", p.Raw, p.Type)
	case "places":
		wrapper := word()
		var lines []string
		for _, p := range set.Places(wrapper, line) {
			lines = append(lines, strings.TrimPrefix(p.Server+"::", "::")+p.Address)
		}
		return strings.Join(lines, "\n")
	case "maps":
		wrapper, verb := word(), verbs[word()]
		return fmt.Sprint(set.Maps(wrapper, verb, "", line))
	case "at":
		wrapper := word()
		tg, ok := set.At(wrapper, "", line)
		if tg.Document != nil {
			tg.Register = fmt.Sprintf("%q…", tg.Document.Prefix())
		}
		return strings.TrimSpace(fmt.Sprint(tg.Register, " ", tg.Address, " ", ok))
	case "patterns":
		var lines []string
		for _, p := range set.Patterns(word()) {
			text := fmt.Sprintf("%d segments, suffix %s, in=%v out=%v open=%v", len(p.Segments), p.Suffix, p.In, p.Out, p.Open)
			for _, m := range p.Members {
				text += fmt.Sprintf("\n  %s %s key=%v in=%v out=%v", m.Name, m.Type, m.Key, m.In, m.Out)
			}
			lines = append(lines, text)
		}
		return strings.Join(lines, "\n")
	case "under":
		wrapper := word()
		var lines []string
		for _, u := range set.Under(wrapper, "", line) {
			lines = append(lines, fmt.Sprintf("%s %q", u.Bind.Address(), u.RegisterPrefix))
		}
		return strings.Join(lines, "\n")
	case "check", "add":
		register, field := word(), word()
		v := state(t, register, line).Value
		kind := engine.OpPut
		if cmd == "add" {
			kind = engine.OpAdd
		}
		err := set.Check(register, []engine.Op{{Register: register, Kind: kind, Field: strings.Trim(field, "-"), Value: v}})
		return fmt.Sprint(err)
	case "clears":
		register := word()
		st := block(register, line)
		var lines []string
		for _, b := range set.Binds() {
			lines = append(lines, fmt.Sprintf("%s in=%v out=%v [%s]", b.Address(), b.Inward(), b.Outward(), strings.Join(b.Clears(st), " ")))
			if m := b.Meters(); len(m) > 0 {
				lines[len(lines)-1] += fmt.Sprintf(" meters %q", m)
			}
		}
		return strings.Join(lines, "\n")
	case "rules":
		var lines []string
		for _, d := range set.Rules() {
			lines = append(lines, d.Template+" at "+d.Source, "  "+d.Pattern)
			say := func(what string, x any, unless string) {
				if text := fmt.Sprint(x); text != unless {
					lines = append(lines, "  "+what+" "+text)
				}
			}
			say("prefix", d.Prefix, "")
			say("value", d.Value, "latest")
			for _, name := range slices.Sorted(maps.Keys(d.Fields)) {
				say(name, d.Fields[name], "")
			}
			say("commit", d.Commit, "auto")
			say("delete wins", d.DeleteWins, "false")
			say("group", d.Group, "")
			say("writers", d.Writers, "[]")
			say("history", d.Retention, "{0s 0}")
		}
		return strings.Join(lines, "\n")
	}
	t.Fatalf("unknown command %q", line)
	return ""
}

// TestShipped loads mappings.d as the demo does.
func TestShipped(t *testing.T) {
	files, _ := filepath.Glob("../mappings.d/*.hcl")
	if len(files) < 3 {
		t.Fatal(files)
	}
	var in []diag.File
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, diag.File{Name: f, Bytes: b})
		if got, diags := Format(in[len(in)-1]); string(got) != string(b) || diags != nil {
			t.Errorf("%s is not in canonical layout", f)
		}
	}
	set, diags := Load(Input{Files: in, Wrappers: append(standard(), WrapperInfo{Protocol: sql.Protocol, Name: "db", Listens: true}, WrapperInfo{Protocol: ldap.Protocol, Name: "staff", Listens: true}), Later: []string{"ssh", "smb", "coap"}})
	for _, d := range diags {
		if d.Code != "MAP051" {
			t.Error(d)
		}
	}
	if set == nil {
		t.FailNow()
	}
	for _, line := range []struct{ cmd, want string }{
		{"in floor message sensors/berlin/oven-3 {\"value\":21.5}", "site/berlin/oven-3 value=21.5"},
		{"places web site/berlin/oven-3", "/v1/berlin/oven-3"},
		{"places db site/berlin/oven-3", "public.sensors?sensor=oven-3&site=berlin"},
		{"in floor message zigbee2mqtt/lamp {\"state\":\"ON\",\"battery\":80}", "zigbee/lamp battery=80 state=\"ON\""},
		{"in floor message zigbee2mqtt/bridge/state {\"state\":\"online\"}", "no bind maps this address: no bind maps this address"},
		{"in web merge /v1/zigbee/lamp {\"wanted\":\"ON\"}", "zigbee/lamp wanted=\"ON\""},
		{"out floor zigbee/lamp {\"wanted\":\"ON\",\"state\":\"OFF\"}", "zigbee2mqtt/lamp/set: {\"state\":\"ON\"} application/json [wanted]"},
		{"out floor zigbee/lamp {\"state\":\"OFF\"}", "zigbee2mqtt/lamp/set: not sent []"},
		{"in web put /devices/pump-7/desired {\"speed\":1200}", "device/pump-7 whole desired={\"speed\":1200}"},
		{"in floor message devices/pump-7/reported {\"speed\":1180}", "device/pump-7 reported={\"speed\":1180}"},
		{"out floor device/pump-7 {\"desired\":{\"speed\":1200}}", "devices/pump-7/desired: {\"speed\":1200} application/json [desired]"},
		{"in floor message devices/pump-7/desired {\"speed\":1}", "no bind maps this address: no bind maps this address"},
		{"in web put /v1/peak/m1 {\"value\":7}", "peak/m1 whole value=7"},
		{"in web message /v1/stock/bolts/add {\"add\":5}", "stock/bolts value+=5"},
		{"in floor message stock/bolts/add {\"add\":-2}", "stock/bolts value+=-2"},
		{"in floor message scale/bolts 3", "stock/bolts value=3"},
		{"places floor stock/bolts", "stock/bolts"},
		{"in floor message tags/d1/add round", "tags/d1 value+=[\"round\"]"},
		{"in web put /v1/tags/d1 {\"value\":[\"red\",\"big\"]}", "tags/d1 whole value=[\"big\",\"red\"]"},
		{"in staff merge uid=ann,ou=people row:{\"cn\":\"Ann Lee\",\"manager\":\"uid=bo,ou=people,dc=acme,dc=org\",\"mail\":null}", "person/ann boss=\"bo\" mail=cleared name=\"Ann Lee\""},
		{"in staff put cn=ovens,ou=groups row:{\"member\":\"uid=ann,ou=people,dc=acme,dc=org\"}", "team/ovens whole members=[\"ann\"]"},
		{"out staff team/ovens {\"members\":[\"ann\",\"bo\"]}", "cn=ovens,ou=groups: row:{\"member\":[\"uid=ann,ou=people,dc=acme,dc=org\",\"uid=bo,ou=people,dc=acme,dc=org\"]} [members]"},
		{"out web title/d1 {\"value\":{\"$set\":[\"Ovens\",\"Kilns\"]}}", "/v1/title/d1: {\"value\":[\"Kilns\",\"Ovens\"]} application/json [value]"},
		{"in web put /v1/title/d1 {\"value\":[\"Kilns\",\"Ovens\"]}", "invalid: value: these are several values, of writers who did not know of each other: choose one of them"},
	} {
		if got := command(t, set, line.cmd); got != line.want {
			t.Errorf("%s\ngot  %s\nwant %s", line.cmd, got, line.want)
		}
	}
}
