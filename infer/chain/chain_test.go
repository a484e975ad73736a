package chain_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"vigil/infer"
	"vigil/infer/chain"
)

type named struct {
	infer.Runtime
	name string
}

func (n named) Name() string { return n.name }

// link is a link that opens, fails, or can only be told of; opened counts.
func link(name string, opens bool, err error, opened *[]string) chain.Link {
	l := chain.Link{Name: name, Probe: func() chain.Answer { return chain.Answer{State: chain.No, Reason: "probe of " + name} }}
	if opens || err != nil {
		l.Open = func(context.Context) (infer.Runtime, error) {
			*opened = append(*opened, name)
			if err != nil {
				return nil, err
			}
			return named{name: "runtime of " + name}, nil
		}
	}
	return l
}

var errDriver = errors.New("no driver")

func TestTheFirstThatOpensIsTaken(t *testing.T) {
	var opened []string
	links := []chain.Link{
		link("a", false, errDriver, &opened), link("b", false, nil, &opened), link("c", true, nil, &opened), link("d", true, nil, &opened),
	}
	rt, list, err := chain.Open(t.Context(), links)
	if err != nil || rt.Name() != "runtime of c" || !slices.Equal(opened, []string{"a", "c"}) {
		t.Fatalf("%v, %v, opened %v", rt, err, opened)
	}
	want := []chain.Verdict{
		{Runtime: "a", State: chain.No, Reason: "no driver"}, {Runtime: "b", State: chain.No, Reason: "probe of b"},
		{Runtime: "c", State: chain.Yes, Reason: "runtime of c", Used: true},
		{Runtime: "d", State: chain.DontKnow, Reason: "not tried: a faster one is used"},
	}
	if !slices.Equal(list, want) {
		t.Errorf("%+v", list)
	}
	if got := chain.PassedOver(list); !slices.Equal(got, []string{"a: no driver", "b: probe of b"}) {
		t.Errorf("passed over %q", got)
	}

	// A model that c does not take goes on to d, and what was before c is not tried again.
	opened = nil
	rt, next, err := chain.Next(t.Context(), links, list, errors.New("unsupported node x"))
	if err != nil || rt.Name() != "runtime of d" || !slices.Equal(opened, []string{"d"}) {
		t.Fatalf("%v, %v, opened %v", rt, err, opened)
	}
	if got := chain.PassedOver(next); !slices.Equal(got, []string{"a: no driver", "b: probe of b", "c: unsupported node x"}) || !next[3].Used {
		t.Errorf("passed over %q of %+v", got, next)
	}
	if !list[2].Used {
		t.Error("the verdicts that were given were changed")
	}
	if _, _, err := chain.Next(t.Context(), links, next, errDriver); !errors.Is(err, chain.ErrNone) {
		t.Errorf("behind the last: %v", err)
	}
}

func TestNoneSaysWhyOfEach(t *testing.T) {
	var opened []string
	rt, list, err := chain.Open(t.Context(), []chain.Link{link("a", false, errDriver, &opened), link("b", false, nil, &opened)})
	if rt != nil || !errors.Is(err, chain.ErrNone) || !errors.Is(err, errDriver) || !strings.Contains(err.Error(), "b: probe of b") || len(list) != 2 {
		t.Errorf("%v, %v, %+v", rt, err, list)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := chain.Open(ctx, []chain.Link{link("a", true, nil, &opened)}); !errors.Is(err, context.Canceled) {
		t.Errorf("an ended context: %v", err)
	}
	if list := chain.Ask([]chain.Link{link("a", true, nil, &opened)}); len(list) != 1 || list[0].Reason != "probe of a" || list[0].Used {
		t.Errorf("asked: %+v", list)
	}
}
