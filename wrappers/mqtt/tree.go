package mqtt

import (
	"slices"
	"strings"
)

// A subscription is one filter of one session.
type subscription struct {
	session *session
	filter  string // as the client wrote it, "$share/…" included
	topics  string // the filter without its share
	options request
	id      int    // subscription identifier, 0 for none
	since   uint64 // head of the stream when it was made
	asked   uint64 // and when its registers were asked for
	group   *group
	first   []delivery // registers read before the SUBACK, to be sent first
	whole   bool       // there are no more
}

// A tree finds the subscriptions that select a topic. The broker's lock guards it.
type tree struct {
	root node
}

type node struct {
	kids   map[string]*node
	subs   []*subscription
	groups []*group
}

func (t *tree) add(s *subscription) {
	n := t.walk(s.topics)
	n.subs = append(n.subs, s)
}

func (t *tree) addGroup(g *group) {
	n := t.walk(g.topics)
	n.groups = append(n.groups, g)
}

// walk gives the node of a filter, making it.
func (t *tree) walk(filter string) *node {
	n := &t.root
	for level := range strings.SplitSeq(filter, "/") {
		kid := n.kids[level]
		if kid == nil {
			kid = &node{}
			if n.kids == nil {
				n.kids = make(map[string]*node)
			}
			n.kids[level] = kid
		}
		n = kid
	}
	return n
}

func (t *tree) remove(s *subscription) {
	t.root.prune(s.topics, func(n *node) {
		n.subs = slices.DeleteFunc(n.subs, func(o *subscription) bool { return o == s })
	})
}

func (t *tree) removeGroup(g *group) {
	t.root.prune(g.topics, func(n *node) {
		n.groups = slices.DeleteFunc(n.groups, func(o *group) bool { return o == g })
	})
}

// prune lets change alter the node of the filter and drops what it left empty.
func (n *node) prune(filter string, change func(*node)) {
	level, rest, more := strings.Cut(filter, "/")
	kid := n.kids[level]
	if kid == nil {
		return
	}
	if more {
		kid.prune(rest, change)
	} else {
		change(kid)
	}
	if len(kid.kids) == 0 && len(kid.subs) == 0 && len(kid.groups) == 0 {
		delete(n.kids, level)
	}
}

// match calls found with every node whose filter selects topic.
func (t *tree) match(topic string, found func(*node)) {
	t.root.match(topic, !strings.HasPrefix(topic, "$"), found)
}

func (n *node) match(topic string, wild bool, found func(*node)) {
	if len(n.kids) == 0 {
		return
	}
	level, rest, more := strings.Cut(topic, "/")
	if wild {
		if kid := n.kids["#"]; kid != nil {
			found(kid)
		}
		if kid := n.kids["+"]; kid != nil {
			kid.descend(rest, more, found)
		}
	}
	if kid := n.kids[level]; kid != nil && level != "+" && level != "#" {
		kid.descend(rest, more, found)
	}
}

// descend goes on below a level that matched.
func (n *node) descend(rest string, more bool, found func(*node)) {
	if more {
		n.match(rest, true, found)
		return
	}
	found(n)
	if kid := n.kids["#"]; kid != nil { // "a/#" selects "a" too
		found(kid)
	}
}
