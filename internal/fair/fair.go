// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

// Package fair keeps what many owners have of one thing in order of use. Where there is
// too much, the one who has most gives way, with what was not used for longest: who has
// less than its share loses nothing, however many the others want.
package fair

import "container/list"

// A Table holds entries of owners K. Its zero value is empty. It is not safe for
// concurrent use. Its size is for its user to bound.
type Table[K comparable, V any] struct {
	owners map[K]*owner
	weight int
}

type owner struct {
	entries list.List // of *Entry, least recently used first
	weight  int
}

// An Entry is what an owner has one of.
type Entry[K comparable, V any] struct {
	Owner K
	Value V

	weight  int
	of      *owner
	element *list.Element // nil: it is in no table
}

// Add puts in an entry, as the one used most recently.
func (t *Table[K, V]) Add(k K, v V, weight int) *Entry[K, V] {
	o := t.owners[k]
	if o == nil {
		if t.owners == nil {
			t.owners = make(map[K]*owner)
		}
		o = new(owner)
		t.owners[k] = o
	}
	e := &Entry[K, V]{Owner: k, Value: v, weight: weight, of: o}
	e.element = o.entries.PushBack(e)
	o.weight += weight
	t.weight += weight
	return e
}

// Touch makes e the one of its owner's that was used most recently.
func (t *Table[K, V]) Touch(e *Entry[K, V]) {
	if e.element != nil {
		e.of.entries.MoveToBack(e.element)
	}
}

// Remove takes e out. A second call has no effect.
func (t *Table[K, V]) Remove(e *Entry[K, V]) {
	if e.element == nil {
		return
	}
	e.of.entries.Remove(e.element)
	e.element = nil
	e.of.weight -= e.weight
	t.weight -= e.weight
	if e.of.entries.Len() == 0 {
		delete(t.owners, e.Owner)
	}
}

// Weight returns what all entries weigh.
func (t *Table[K, V]) Weight() int { return t.weight }

// WeightOf returns what those of an owner weigh.
func (t *Table[K, V]) WeightOf(k K) int {
	if o := t.owners[k]; o != nil {
		return o.weight
	}
	return 0
}

// Oldest returns the entry of an owner that was not used for longest, or nil.
func (t *Table[K, V]) Oldest(k K) *Entry[K, V] {
	if o := t.owners[k]; o != nil {
		return o.entries.Front().Value.(*Entry[K, V])
	}
	return nil
}

// Excess returns the entry that gives way, or nil: the oldest of the owner whose entries
// weigh most.
func (t *Table[K, V]) Excess() *Entry[K, V] {
	var most *owner
	for _, o := range t.owners {
		if most == nil || o.weight > most.weight {
			most = o
		}
	}
	if most == nil {
		return nil
	}
	return most.entries.Front().Value.(*Entry[K, V])
}
