package main

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// faults are the jobs that break things, until their context ends. What they have
// broken they mend before they return.
func (s *soak) faults() []func(context.Context) error {
	return []func(context.Context) error{s.killing, s.troubling}
}

// killing kills one replica after another and starts it again.
func (s *soak) killing(ctx context.Context) error {
	for pause(ctx, s.rand.between(3*time.Second, 6*time.Second)) {
		b := s.brokers[s.rand.below(len(s.brokers))]
		s.say("killing %s", b.name)
		b.kill()
		s.ledger.did("replica killed")
		pause(ctx, s.rand.between(100*time.Millisecond, 2*time.Second))
		if err := s.revive(ctx, b); err != nil {
			return err
		}
	}
	return nil
}

// revive starts a replica again. One that does not find its database ends, as it
// says it does; it is started until it stays, as an orchestrator would.
func (s *soak) revive(ctx context.Context, b *replica) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	defer cancel()
	for {
		err := b.start(ctx)
		if err == nil {
			return nil
		}
		s.ledger.did("start of a replica without its database")
		if !pause(ctx, 200*time.Millisecond) {
			return fmt.Errorf("%s cannot be started again: %w", b.name, err)
		}
	}
}

// troubling troubles the vault and the database in turn.
func (s *soak) troubling(ctx context.Context) error {
	troubles := []struct {
		name string
		make func(context.Context) error
	}{
		{"vault sealed", s.seal}, {"secret rotated in the vault", s.rotate}, {"database restarted", s.restart},
		{"vault frozen", s.freeze}, {"secret rotated in the vault", s.rotate},
	}
	for n := s.rand.below(len(troubles)); pause(ctx, s.rand.between(2*time.Second, 5*time.Second)); n++ {
		trouble := troubles[n%len(troubles)]
		s.say("%s", trouble.name)
		if err := trouble.make(ctx); err != nil {
			return err
		}
		s.ledger.did(trouble.name)
	}
	return nil
}

func (s *soak) seal(ctx context.Context) error {
	s.vault.Seal()
	pause(ctx, s.rand.between(time.Second, 4*time.Second))
	s.vault.Unseal()
	return nil
}

func (s *soak) freeze(ctx context.Context) error {
	s.vault.Pause()
	pause(ctx, s.rand.between(time.Second, 3*time.Second))
	s.vault.Resume()
	return nil
}

func (s *soak) restart(ctx context.Context) error {
	s.cluster.Stop()
	pause(ctx, s.rand.between(100*time.Millisecond, 2*time.Second))
	s.cluster.Start(s)
	return nil
}

// rotate changes the secret at the provider and then in the vault, as a person does:
// with a moment between the two.
func (s *soak) rotate(ctx context.Context) error {
	secret := fmt.Sprintf("secret-of-%d", time.Now().UnixNano())
	s.oidc.SetSecret(s, clientID, secret)
	pause(ctx, 300*time.Millisecond)
	status, _ := s.vault.Do(http.MethodPost, "secret/data/"+prefix+"/flow/client_secret", map[string]any{"data": map[string]any{"value": secret}})
	if status != http.StatusOK {
		return fmt.Errorf("the vault answers %d to the new secret", status)
	}
	return nil
}
