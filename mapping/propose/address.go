package propose

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"github.com/spooksystems/gateway/wrappers"
)

// A route is one address template and what was sent there.
type route struct {
	protocol, wrapper string
	parts             []part
	params            []param // of a query: name, capture
	samples           []*sample
}

// A part is one segment: a literal, or a capture with text around it.
type part struct {
	literal string
	capture string // its name; "" for a literal
	suffix  string // behind the capture: ".json"
}

func (p part) isCapture() bool { return p.capture != "" }

// values are what the captures of the path were in one sample.
func (r *route) values(s *sample) []string {
	var out []string
	for i, p := range r.parts {
		if p.isCapture() {
			out = append(out, strings.TrimSuffix(s.segs[i], p.suffix))
		}
	}
	return out
}

// routes finds the templates of all addresses.
func (p *proposer) routes() []*route {
	byWrapper := map[[2]string][]*sample{}
	for _, s := range p.samples {
		k := [2]string{s.op.Protocol, s.op.Wrapper}
		byWrapper[k] = append(byWrapper[k], s)
	}
	var out []*route
	keys := make([][2]string, 0, len(byWrapper))
	for k := range byWrapper {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b [2]string) int { return cmp.Or(strings.Compare(a[0], b[0]), strings.Compare(a[1], b[1])) })
	for _, k := range keys {
		out = append(out, p.cluster(byWrapper[k], 0, nil)...)
	}
	for _, r := range out {
		r.name(p.protocols[r.protocol])
		for _, s := range r.samples {
			s.route = r
		}
	}
	return out
}

// cluster divides the samples whose templates begin with parts.
func (p *proposer) cluster(samples []*sample, depth int, parts []part) []*route {
	var ends, queried []*sample
	below := map[string][]*sample{}
	for _, s := range samples {
		switch {
		case len(s.segs) > depth:
			below[s.segs[depth]] = append(below[s.segs[depth]], s)
		case len(s.query) > 0 && s.payload.form == none && s.verb.Writes() && s.verb != wrappers.Delete:
			queried = append(queried, s)
		default:
			ends = append(ends, s)
		}
	}
	var out []*route
	if len(ends) > 0 {
		out = append(out, newRoute(ends, parts, nil))
	}
	byParams := map[string][]*sample{}
	for _, s := range queried {
		var names []string
		for _, q := range s.query {
			names = append(names, q.name)
		}
		slices.Sort(names)
		k := strings.Join(slices.Compact(names), "&")
		byParams[k] = append(byParams[k], s)
	}
	for _, k := range sortedKeys(byParams) {
		out = append(out, newRoute(byParams[k], parts, strings.Split(k, "&")))
	}
	if len(below) == 0 {
		return out
	}
	variable, suffix := map[string]bool{}, ""
	if !p.protocols[samples[0].op.Protocol].Syntax.Keys { // a table is what its name says
		variable, suffix = divide(below, depth, parts)
	}
	var merged []*sample
	for _, v := range sortedKeys(below) {
		if variable[v] {
			merged = append(merged, below[v]...)
		}
	}
	if len(merged) > 0 {
		out = append(out, p.cluster(merged, depth+1, append(slices.Clone(parts), part{capture: "?", suffix: suffix}))...)
	}
	for _, v := range sortedKeys(below) {
		if !variable[v] {
			out = append(out, p.cluster(below[v], depth+1, append(slices.Clone(parts), part{literal: v}))...)
		}
	}
	return out
}

func newRoute(samples []*sample, parts []part, params []string) *route {
	r := &route{protocol: samples[0].op.Protocol, wrapper: samples[0].op.Wrapper, parts: slices.Clone(parts), samples: samples}
	for _, name := range params {
		r.params = append(r.params, param{name: name})
	}
	return r
}

var (
	version  = regexp.MustCompile(`(?i)^v\d+([._]\d+)*$`)
	uuid     = regexp.MustCompile(`(?i)^[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}$`)
	digits   = regexp.MustCompile(`^\d+$`)
	hex      = regexp.MustCompile(`(?i)^(0x)?[0-9a-f]{6,}$`)
	mac      = regexp.MustCompile(`(?i)^([0-9a-f]{2}[:-]){5}[0-9a-f]{2}$`)
	date     = regexp.MustCompile(`^\d{4}-\d\d(-\d\d)?`)
	slug     = regexp.MustCompile(`^([A-Za-z][A-Za-z _.\-]*?)[-_ .]+(\d+|[0-9a-fA-F]{4,}|[A-Z])$`)
	numbered = regexp.MustCompile(`^([A-Za-z](?:[A-Za-z_\-]*[A-Za-z])?)(\d+)$`)
	fileName = regexp.MustCompile(`^(.+)(\.(?:json|csv|xml|txt|cbor|bin|html?|log|dat))$`)
)

// isID tells whether a segment alone looks like the name of one of many.
func isID(v string) bool {
	if m := fileName.FindStringSubmatch(v); m != nil {
		v = m[1]
	}
	switch {
	case version.MatchString(v):
		return false
	case digits.MatchString(v), uuid.MatchString(v), mac.MatchString(v), date.MatchString(v), slug.MatchString(v):
		return true
	case hex.MatchString(v):
		return strings.ContainsAny(v, "0123456789")
	case strings.Contains(v, "@"), strings.Contains(v, "%"):
		return true
	}
	letters, figures := 0, 0
	for _, r := range v {
		switch {
		case unicode.IsDigit(r):
			figures++
		case unicode.IsLetter(r):
			letters++
		}
	}
	return len(v) >= 14 && figures >= 4 && letters >= 2
}

// known are words that say what is meant, and not of which one.
var known = wordSet(`temp temperature hum humidity pressure state status value power energy battery voltage current level co2 voc pm10 pm25 speed
		position set get rssi availability online cmd command cmnd desired reported telemetry config settings info version uptime events event alarm alarms data
		attributes payload mode brightness color luminance illuminance motion contact occupancy lat lon latitude longitude location flow volume weight count total
		health metrics log logs api rest bridge update updates result lwt sensor setpoint target actual wanted raw last latest current meta address items`)

func wordSet(words string) map[string]bool {
	m := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		m[w] = true
	}
	return m
}

// divide tells which of the segments at one place are values of a capture, and which literals. suffix: what all values end with.
func divide(below map[string][]*sample, depth int, parts []part) (variable map[string]bool, suffix string) {
	variable = map[string]bool{}
	stems := map[string]int{}
	var words []string
	for _, v := range sortedKeys(below) {
		base := v
		if m := fileName.FindStringSubmatch(v); m != nil {
			base = m[1]
		}
		switch m := numbered.FindStringSubmatch(base); {
		case isID(v) && !(depth == 0 && alone(v, below)): // "rtl_433" at the root is a program
			variable[v] = true
		case version.MatchString(base), known[strings.ToLower(base)]:
		default:
			if m != nil {
				stems[m[1]]++
			}
			words = append(words, v)
		}
	}
	const most = 100 // words at one place: beyond it nobody means them one by one
	if len(words) > most {
		for _, w := range words {
			variable[w] = true
		}
		words = nil
	}
	var ids signature
	for _, v := range sortedKeys(variable) {
		ids = ids.with(signatureOf(below[v], depth))
	}
	signs := map[string]signature{}
	for _, w := range words {
		signs[w] = signatureOf(below[w], depth)
	}
	// Words that stand for one another: what is sent there looks alike.
	for i, w := range words {
		if variable[w] || !canVary(w, below[w], depth, parts) {
			continue
		}
		if m := numbered.FindStringSubmatch(w); m != nil && stems[m[1]] > 1 || ids != nil && alike(signs[w], ids) {
			variable[w] = true
			continue
		}
		for _, o := range words[i+1:] {
			if canVary(o, below[o], depth, parts) && alike(signs[w], signs[o]) {
				variable[w], variable[o] = true, true
			}
		}
	}
	// One that differs in what it says may still be one of them: it ends at the same place and has a member in common.
	var all signature
	for _, v := range sortedKeys(variable) {
		all = all.with(signatureOf(below[v], depth))
	}
	for _, w := range words {
		if !variable[w] && all != nil && canVary(w, below[w], depth, parts) && signs[w].members(all) {
			variable[w] = true
		}
	}
	first := true
	for v := range variable {
		m := fileName.FindStringSubmatch(v)
		switch {
		case m == nil:
			return variable, ""
		case first:
			suffix, first = m[2], false
		case suffix != m[2]:
			return variable, ""
		}
	}
	return variable, suffix
}

// alone tells whether a word with a number has no other of its kind beside it.
func alone(v string, below map[string][]*sample) bool {
	m := slug.FindStringSubmatch(v)
	if m == nil {
		return false
	}
	for o := range below {
		if n := slug.FindStringSubmatch(o); o != v && n != nil && n[1] == m[1] {
			return false
		}
	}
	return true
}

// canVary tells whether a word could be a value of a capture. A plural with something below it is a collection; a word that stands for
// one value at several of the captured things before it is what is measured there.
func canVary(w string, samples []*sample, depth int, parts []part) bool {
	continues, scalar := false, true
	before := map[string]bool{}
	for _, s := range samples {
		continues = continues || len(s.segs) > depth+1
		scalar = scalar && (s.payload.form == none || !s.payload.object && s.payload.form != csvForm)
		if depth > 0 {
			before[s.segs[depth-1]] = true
		}
	}
	if continues && strings.HasSuffix(w, "s") && !strings.HasSuffix(w, "ss") {
		return false
	}
	return !(scalar && !continues && depth > 0 && parts[depth-1].isCapture() && len(before) > 1)
}

// A signature is what is sent below a segment: the form of the rest of the address, and the members.
type signature map[string]bool

func signatureOf(samples []*sample, depth int) signature {
	out := signature{}
	for _, s := range samples {
		rest := make([]string, 0, len(s.segs))
		for _, seg := range s.segs[depth+1:] {
			if isID(seg) {
				seg = "*"
			}
			rest = append(rest, seg)
		}
		at := strings.Join(rest, "/") + "#"
		switch {
		case s.payload.form == none:
		case s.payload.object:
			for m := range s.payload.members {
				out[at+m] = true
			}
		case s.payload.form == csvForm:
			for _, c := range s.payload.columns {
				out[at+c] = true
			}
		default:
			out[at+":"+string(s.payload.form)] = true
		}
	}
	return out
}

func (s signature) with(o signature) signature {
	if s == nil {
		s = signature{}
	}
	for k := range o {
		s[k] = true
	}
	return s
}

// alike: at least half of what one of them has the other has too.
func alike(a, b signature) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	common := 0
	for k := range a {
		if b[k] {
			common++
		}
	}
	return 2*common >= len(a)+len(b)-common
}

// members tells whether a document right here has a member that those of o have.
func (s signature) members(o signature) bool {
	for k := range s {
		if strings.HasPrefix(k, "#") && !strings.HasPrefix(k, "#:") && o[k] {
			return true
		}
	}
	return false
}

// generic words say nothing of what is behind them.
var generic = wordSet("api rest data state states status tele stat cmnd plant home hub values latest current public local db sys update updates upload uploads import ingest submit form forms file files soap")

func isGeneric(w string) bool { return generic[strings.ToLower(w)] || version.MatchString(w) }

// devices are roots whose next segment is a device.
var devices = wordSet("zigbee2mqtt tasmota shellies homie tele stat cmnd zwave esphome")

// taken are the names that expressions have already.
var taken = wordSet("payload wrapper server now raw meta verb peer who self row exists reg null true false for if in")

// singular is an English plural's.
func singular(w string) string {
	l := strings.ToLower(w)
	switch {
	case strings.HasSuffix(l, "ies") && len(w) > 4:
		return w[:len(w)-3] + "y"
	case strings.HasSuffix(l, "ches"), strings.HasSuffix(l, "shes"), strings.HasSuffix(l, "sses"), strings.HasSuffix(l, "xes"):
		return w[:len(w)-2]
	case strings.HasSuffix(l, "s") && !strings.HasSuffix(l, "ss") && !strings.HasSuffix(l, "us") && !strings.HasSuffix(l, "is") && len(w) > 3:
		return w[:len(w)-1]
	}
	return w
}

var notName = regexp.MustCompile(`[^a-z0-9_]+`)

// identifier makes a name of the language of a word.
func identifier(w string) string {
	w = strings.Trim(notName.ReplaceAllString(strings.ToLower(w), "_"), "_")
	if len(w) > 40 {
		w = strings.TrimRight(w[:40], "_")
	}
	switch {
	case w == "":
		return "name"
	case w[0] >= '0' && w[0] <= '9':
		w = "n" + w
	case taken[w]:
		w += "_"
	}
	return w
}

// name gives the captures of a route their names.
func (r *route) name(proto *wrappers.Protocol) {
	used := map[string]bool{}
	pick := func(name string) string {
		name = identifier(name)
		for n := 2; used[name]; n++ {
			name = fmt.Sprintf("%s%d", strings.TrimRight(name, "0123456789"), n)
		}
		used[name] = true
		return name
	}
	for i := 0; i < len(r.parts); {
		if !r.parts[i].isCapture() {
			i++
			continue
		}
		end := i
		for end < len(r.parts) && r.parts[end].isCapture() {
			end++
		}
		// The last of a row is one of what stands before the row; those before it are where that is.
		for k := i; k < end; k++ {
			if k < end-1 {
				r.parts[k].capture = pick([]string{"site", "area", "group", "part"}[min(k-i, 3)])
				continue
			}
			r.parts[k].capture = pick(r.nounFor(i, k))
		}
		i = end
	}
	for i := range r.params {
		r.params[i].value = pick(r.params[i].name)
	}
}

// nounFor names the capture at k, of a row that begins at i.
func (r *route) nounFor(i, k int) string {
	noun := ""
	if i > 0 {
		noun = r.parts[i-1].literal
	}
	if devices[strings.ToLower(noun)] {
		return "device"
	}
	if isGeneric(noun) {
		noun = ""
	}
	if one := singular(noun); one != noun {
		return one
	}
	stem, all := "", true
	number := true
	for _, s := range r.samples {
		v := strings.TrimSuffix(s.segs[k], r.parts[k].suffix)
		number = number && (digits.MatchString(v) || uuid.MatchString(v) || hex.MatchString(v))
		m := slug.FindStringSubmatch(v)
		if m == nil {
			m = numbered.FindStringSubmatch(v)
		}
		if m == nil || stem != "" && m[1] != stem {
			all = false
			break
		}
		stem = m[1]
	}
	switch {
	case all && len(stem) > 2:
		return stem
	case noun != "":
		return noun
	case all && stem != "":
		return stem
	case number:
		return "id"
	}
	return "name"
}

// template is the address as a bind has it, with the captures' names in the register.
func (r *route) template(s *wrappers.Syntax, rename func(string) string) string {
	var b strings.Builder
	if s.Absolute {
		b.WriteString(s.Separator)
	}
	for i, p := range r.parts {
		if i > 0 {
			b.WriteString(s.Separator)
		}
		if p.isCapture() {
			b.WriteString("{" + rename(p.capture) + "}" + p.suffix)
		} else {
			b.WriteString(p.literal)
		}
	}
	for i, q := range r.params {
		b.WriteByte("?&"[min(i, 1)])
		b.WriteString(q.name + "={" + rename(q.value) + "}")
	}
	return b.String()
}
