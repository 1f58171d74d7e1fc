package virtual

import (
	"slices"
	"strings"

	"github.com/spooksystems/gateway/wrappers/ldap/ldapwire"
	"github.com/spooksystems/gateway/wrappers/ldap/schema"
)

// Sorting (RFC 2891).
type sorting struct{ keys []sortKey }

type sortKey struct {
	typ     *schema.AttributeType
	options []string
	rule    *schema.MatchingRule
	reverse bool
}

// sorting reads the control; code and attribute are what its response says. Nil: the entries stay as they are.
func (s *server) sorting(value []byte) (order *sorting, code ldapwire.ResultCode, attribute string, err error) {
	keys, err := ldapwire.DecodeSort(value)
	if err != nil {
		return nil, ldapwire.ProtocolError, "", err
	}
	order = &sorting{}
	for _, k := range keys {
		name, options := schema.SplitOptions(k.Attribute)
		t := s.types().Attribute(name)
		if t == nil {
			return nil, ldapwire.NoSuchAttribute, k.Attribute, nil
		}
		rule := t.OrderingRule()
		if rule == nil {
			rule = t.EqualityRule() // their keys are in order as well
		}
		if k.Rule != "" {
			rule = schema.Rule(k.Rule)
		}
		if rule == nil || rule.Kind != schema.Ordering && rule.Kind != schema.Equality {
			return nil, ldapwire.InappropriateMatching, k.Attribute, nil
		}
		order.keys = append(order.keys, sortKey{t, options, rule, k.Reverse})
	}
	return order, ldapwire.Success, "", nil
}

// sort orders entries: by the least value of each key; what has none comes last.
func (o *sorting) sort(s *server, list []*record) {
	type keyed struct {
		r    *record
		keys []string
	}
	all := make([]keyed, len(list))
	for i, r := range list {
		all[i] = keyed{r, make([]string, len(o.keys))}
		for k := range o.keys {
			key, found := &o.keys[k], false
			view{r, s}.Each(key.typ, key.options, func(_ *schema.AttributeType, values [][]byte) bool {
				for _, v := range values {
					if form, ok := key.rule.Key(s.types(), v); ok && (!found || "\x00"+form < all[i].keys[k]) {
						all[i].keys[k], found = "\x00"+form, true
					}
				}
				return true
			})
			if !found {
				all[i].keys[k] = "\x01"
			}
		}
	}
	slices.SortStableFunc(all, func(a, b keyed) int {
		for k := range o.keys {
			if c := strings.Compare(a.keys[k], b.keys[k]); c != 0 {
				if o.keys[k].reverse {
					return -c
				}
				return c
			}
		}
		return 0
	})
	for i := range all {
		list[i] = all[i].r
	}
}
