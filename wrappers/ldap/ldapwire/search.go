package ldapwire

// Scopes and ways to follow aliases of a search (RFC 4511, section 4.5.1).
const (
	ScopeBaseObject   = 0
	ScopeSingleLevel  = 1
	ScopeWholeSubtree = 2
	ScopeSubordinate  = 3 // the subtree without its base (draft-sermersheim-ldap-subordinate-scope)

	NeverDerefAliases   = 0
	DerefInSearching    = 1
	DerefFindingBaseObj = 2
	DerefAlways         = 3
)

// SearchRequest asks for entries (RFC 4511, section 4.5.1).
type SearchRequest struct {
	BaseObject   string
	Scope        int64
	DerefAliases int64
	SizeLimit    int64 // entries; 0: none
	TimeLimit    int64 // seconds; 0: none
	TypesOnly    bool
	Filter       *Filter
	Attributes   []string
}

func (*SearchRequest) Op() Op { return OpSearchRequest }

func (q *SearchRequest) decode(c []byte) (err error) {
	r := reader{c}
	if q.BaseObject, err = r.text("the base"); err != nil {
		return err
	}
	if q.Scope, err = r.enum("the scope"); err != nil {
		return err
	}
	if q.DerefAliases, err = r.enum("derefAliases"); err != nil {
		return err
	}
	if q.SizeLimit, err = r.int("the size limit"); err != nil {
		return err
	}
	if q.TimeLimit, err = r.int("the time limit"); err != nil {
		return err
	}
	if q.TypesOnly, err = r.bool("typesOnly"); err != nil {
		return err
	}
	if q.Filter, err = readFilter(&r, 0); err != nil {
		return err
	}
	list, err := r.sequence("the attributes")
	if err != nil {
		return err
	}
	for !list.empty() {
		a, err := list.text("an attribute")
		if err != nil {
			return err
		}
		q.Attributes = append(q.Attributes, a)
	}
	return nil
}

func (q *SearchRequest) append(b []byte) []byte {
	b = appendString(b, tagOctetString, q.BaseObject)
	b = appendInt(b, tagEnumerated, q.Scope)
	b = appendInt(b, tagEnumerated, q.DerefAliases)
	b = appendInt(b, tagInteger, q.SizeLimit)
	b = appendInt(b, tagInteger, q.TimeLimit)
	b = appendBool(b, tagBoolean, q.TypesOnly)
	b = q.Filter.append(b)
	return nest(b, tagSequence, func(b []byte) []byte {
		for _, a := range q.Attributes {
			b = appendString(b, tagOctetString, a)
		}
		return b
	})
}

// A FilterKind is the choice that a Filter is (RFC 4511, section 4.5.1.7).
type FilterKind byte

const (
	FilterAnd             FilterKind = context | constructed
	FilterOr              FilterKind = context | constructed | 1
	FilterNot             FilterKind = context | constructed | 2
	FilterEqualityMatch   FilterKind = context | constructed | 3
	FilterSubstrings      FilterKind = context | constructed | 4
	FilterGreaterOrEqual  FilterKind = context | constructed | 5
	FilterLessOrEqual     FilterKind = context | constructed | 6
	FilterPresent         FilterKind = context | 7
	FilterApproxMatch     FilterKind = context | constructed | 8
	FilterExtensibleMatch FilterKind = context | constructed | 9
)

// A Filter says which entries a search is of.
type Filter struct {
	Kind         FilterKind
	Filters      []*Filter // and, or: any number; not: one
	Attribute    string    // all but and, or and not; of an extensible match "" where it names none
	Value        []byte    // equality, ordering, approximate and extensible matches
	Initial      []byte    // substrings; nil: there is none
	Any          [][]byte
	Final        []byte
	MatchingRule string // extensible match, "": that of the attribute
	DNAttributes bool   // extensible match: also the values in the DN
}

func readFilter(r *reader, depth int) (*Filter, error) {
	if depth > maxNested {
		return nil, malformed("filters nested deeper than %d", maxNested)
	}
	tag, c, err := r.next()
	if err != nil {
		return nil, err
	}
	f := &Filter{Kind: FilterKind(tag)}
	in := reader{c}
	switch f.Kind {
	case FilterAnd, FilterOr:
		for !in.empty() {
			sub, err := readFilter(&in, depth+1)
			if err != nil {
				return nil, err
			}
			f.Filters = append(f.Filters, sub)
		}
	case FilterNot:
		sub, err := readFilter(&in, depth+1)
		if err != nil {
			return nil, err
		}
		f.Filters = []*Filter{sub}
	case FilterEqualityMatch, FilterGreaterOrEqual, FilterLessOrEqual, FilterApproxMatch:
		if f.Attribute, err = in.text("a filter's attribute"); err != nil {
			return nil, err
		}
		f.Value, err = in.bytes("a filter's value")
	case FilterPresent:
		f.Attribute = string(c)
	case FilterSubstrings:
		err = f.readSubstrings(&in)
	case FilterExtensibleMatch:
		err = f.readExtensible(&in)
	default:
		err = malformed("a filter of the tag %#x", tag)
	}
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (f *Filter) readSubstrings(in *reader) (err error) {
	if f.Attribute, err = in.text("a filter's attribute"); err != nil {
		return err
	}
	list, err := in.sequence("substrings")
	if err != nil {
		return err
	}
	if list.empty() {
		return malformed("a substrings filter without any")
	}
	for first := true; !list.empty(); first = false {
		tag, c, err := list.next()
		switch {
		case err != nil:
			return err
		case tag == context && first:
			f.Initial = c
		case tag == context|1 && f.Final == nil:
			f.Any = append(f.Any, c)
		case tag == context|2 && f.Final == nil:
			f.Final = c
		default:
			return malformed("a substring of the tag %#x at that place", tag)
		}
	}
	return nil
}

func (f *Filter) readExtensible(in *reader) error {
	rule, _, err := in.maybe(context | 1)
	if err != nil {
		return err
	}
	attribute, _, err := in.maybe(context | 2)
	if err != nil {
		return err
	}
	f.MatchingRule, f.Attribute = string(rule), string(attribute)
	if f.Value, err = in.take(context|3, "a filter's value"); err != nil {
		return err
	}
	flag, there, err := in.maybe(context | 4)
	if there {
		f.DNAttributes, err = boolean(flag, "dnAttributes")
	}
	return err
}

func (f *Filter) append(b []byte) []byte {
	if f.Kind == FilterPresent {
		return appendString(b, byte(f.Kind), f.Attribute)
	}
	return nest(b, byte(f.Kind), func(b []byte) []byte {
		switch f.Kind {
		case FilterAnd, FilterOr, FilterNot:
			for _, sub := range f.Filters {
				b = sub.append(b)
			}
		case FilterSubstrings:
			b = appendString(b, tagOctetString, f.Attribute)
			b = nest(b, tagSequence, func(b []byte) []byte {
				if f.Initial != nil {
					b = AppendTLV(b, context, f.Initial)
				}
				for _, a := range f.Any {
					b = AppendTLV(b, context|1, a)
				}
				if f.Final != nil {
					b = AppendTLV(b, context|2, f.Final)
				}
				return b
			})
		case FilterExtensibleMatch:
			if f.MatchingRule != "" {
				b = appendString(b, context|1, f.MatchingRule)
			}
			if f.Attribute != "" {
				b = appendString(b, context|2, f.Attribute)
			}
			b = AppendTLV(b, context|3, f.Value)
			if f.DNAttributes {
				b = appendBool(b, context|4, true)
			}
		default:
			b = appendString(b, tagOctetString, f.Attribute)
			b = AppendTLV(b, tagOctetString, f.Value)
		}
		return b
	})
}
