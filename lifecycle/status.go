// Copyright 2026 The guestnet authors.
// SPDX-License-Identifier: Apache-2.0

package lifecycle

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// State is what a task is doing. Its text form is the lower-case name.
type State int

// A run goes from Starting to Ready, and between Ready and Degraded as it reports.
// A run that was asked to end is Stopping, then Stopped. One that ends by itself
// is restarted after Backoff, or is Stopped when it returned nil and Failed when
// it returned an error.
const (
	Starting State = iota // begun, and not yet reported ready
	Ready                 // doing its work
	Degraded              // running, with the trouble that it reported
	Backoff               // ended by itself, waits to be restarted
	Stopping              // told to stop, not yet ended
	Stopped               // ended as asked, or by itself without an error
	Failed                // ended by itself with an error, and is not restarted
)

var stateNames = [...]string{"starting", "ready", "degraded", "backoff", "stopping", "stopped", "failed"}

// String returns the name of the state in lower case.
func (s State) String() string {
	if s < 0 || int(s) >= len(stateNames) {
		return fmt.Sprintf("State(%d)", int(s))
	}
	return stateNames[s]
}

// MarshalText returns the name of the state, or an error for a value that has
// none. JSON uses it too.
func (s State) MarshalText() ([]byte, error) {
	if s < 0 || int(s) >= len(stateNames) {
		return nil, fmt.Errorf("lifecycle: no state has the number %d", int(s))
	}
	return []byte(stateNames[s]), nil
}

// UnmarshalText accepts what MarshalText returns.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("lifecycle: no state is called %q; one of %q is", text, stateNames)
	}
	*s = State(i)
	return nil
}

// Status is how a task fares.
type Status struct {
	Name  string
	State State
	// Err is the cause of State: what a Degraded run reported; what a run that is
	// in Backoff or Failed returned; what a run that was told to stop returned
	// although it should have ended cleanly (see [Runner]). It stays, as the last cause, through a
	// Stopping and through the Starting after a Backoff, and is nil in Ready.
	Err error
	// Since is when State was entered.
	Since time.Time
	// Restarts counts the runs after the first since the last Start (or Ensure
	// that started).
	Restarts int
	// Run is the number of the run, counted from 1 over the lifetime of the name.
	Run uint64
}

// MarshalJSON writes the status with Err as its text, and without it when nil.
func (s Status) MarshalJSON() ([]byte, error) {
	out := struct {
		Name     string    `json:"name"`
		State    State     `json:"state"`
		Err      string    `json:"err,omitempty"`
		Since    time.Time `json:"since"`
		Restarts int       `json:"restarts"`
		Run      uint64    `json:"run"`
	}{s.Name, s.State, "", s.Since, s.Restarts, s.Run}
	if s.Err != nil {
		out.Err = s.Err.Error()
	}
	return json.Marshal(out)
}
