# For the stripe_*.t beside it: a migrated database with a catalog, and Stripe's side of an account told in a line.
package StripeWorld;
use strict;
use warnings;
use Billing::Database;
use JSON::PP;
use Time::HiRes qw(sleep time);

my $json = JSON::PP->new->canonical;
my $T0 = 1_800_000_000;    # far enough ahead that nothing ends by itself: every time of the tests lies around it
my $DAY = 86400;
sub t0  { $T0 }
sub day { $DAY }

# free 4 logos for ever, starter 20, pro 50 (and 10 videos), agency 200; packs of 10 logos.
sub catalog {
    my (%opt) = @_;
    my $price = sub { { month => { id => "price_$_[0]", amount => $_[1], currency => 'usd' } } };
    return {
        policies => $opt{policies} // {},
        default_plan => 'free', quotas => { requests => { period => 'month' } }, credits => { logo => {}, video => {} },
        plans => {
            free    => { free => $opt{no_free} ? JSON::PP::false : JSON::PP::true, quotas => { requests => 20 }, credits => { logo => 4 } },
            starter => { rank => 1, price => $price->('starter', 2900), credits => { logo => 20 } },
            pro     => { rank => 2, price => { %{ $price->('pro', 7900) },
                year => { id => 'price_pro_year', amount => 79000, currency => 'usd' } }, credits => { logo => 50, video => 10 } },
            agency  => { rank => 3, price => $price->('agency', 19900), credits => { logo => 200, video => 50 } },
        },
        packs => { logo_10 => { credit => 'logo', quantity => 10, price => { id => 'price_pack', amount => 1000, currency => 'usd' } } },
    };
}

sub new {
    my ($class, %opt) = @_;
    my $db = Billing::Database->new(fsync => $opt{fsync})->migrate;
    $db->apply_catalog(catalog(%opt));
    return bless { db => $db, d => $db->dbi, n => 0 }, $class;
}
# The same world over a connection of its own.
sub again { my ($self, $n) = @_; return bless { db => $self->{db}, d => $self->{db}->dbi, n => $n // 0 }, ref $self }
sub db { $_[0]{db} }
sub d  { $_[0]{d} }

sub value { my ($self, $sql, @bind) = @_; return scalar $self->{d}->selectrow_array($sql, undef, @bind) }
sub rows  { my ($self, $sql, @bind) = @_; return $self->{d}->selectall_arrayref($sql, { Slice => {} }, @bind) }
sub row   { my ($self, $sql, @bind) = @_; return $self->{d}->selectrow_hashref($sql, undef, @bind) }

# An account with customer cus_NAME; its number.
sub account {
    my ($self, $name, %opt) = @_;
    $self->{d}->do('SELECT billing.ensure_accounts($1)', undef, [$name]);
    $self->{d}->do('SELECT * FROM billing.customer_link($1, $2)', undef, $name, "cus_$name") if !$opt{unlinked};
    return $self->value('SELECT id FROM billing.accounts WHERE external_id = $1', $name);
}

sub store {
    my ($self, $event, %o) = @_;
    return $self->value('SELECT billing.stripe_event_store($1, $2, $3, $4, $5, $6, $7, $8, $9)', $o{stripe_account} // '', $event,
        $o{type} // 'test', '2026-02-25.clover', $o{livemode} // 'f', exists $o{at} ? $o{at} : $T0, $o{customer},
        '\\x' . unpack('H*', $o{payload} // '{}'), $o{ignored});
}

# Claims one event and no other, as stripe_event_claim does it for the oldest ones; its attempt.
sub take {
    my ($self, $event) = @_;
    return $self->value(q{UPDATE billing.webhook_events SET status = 'processing', attempts = attempts + 1,
        next_attempt_at = now() + interval '1 min' WHERE stripe_account = $2 AND event_id = $1 AND status <> 'processing' RETURNING attempts}, $event, q{});
}

sub ticket { my ($self, $name) = @_; return $self->value('SELECT ticket FROM billing.customer_ticket($1, NULL)', "cus_$name") }

# A subscription as the jobs hand it over.
sub sub_of {
    my ($id, $status, $price, %o) = @_;
    return { id => $id, status => $status, prices => ref $price ? $price : ["price_$price"], quantity => 1,
        period_start => $o{start} // $T0, period_end => $o{end} // ($o{start} // $T0) + 30 * $DAY, cancel_at => $o{cancel_at},
        trial_end => $o{trial_end}, created => $o{created} // $T0, ended_at => $o{ended_at}, pause => $o{pause} };
}

# A pack that was paid for, and what looks see of its payment later: charge(NAME, [[refund, amount, status], ...], amount =>),
# dispute(NAME, status).
sub pack_of {
    my ($name, %o) = @_;
    return { kind => 'checkout_completed', session => "cs_$name", mode => 'payment', payment_status => 'paid', payment_intent => "pi_$name",
        price => 'price_pack', %o };
}
sub charge_of {
    my ($name, $refunds, %o) = @_;
    return { kind => 'charge', seen => { id => "ch_$name", payment_intent => "pi_$name", amount => $o{amount} // 1000, currency => 'usd',
        refunds => [map { { id => "re_${name}_$_->[0]", amount => $_->[1], status => $_->[2] // 'succeeded' } } @$refunds] } };
}
sub dispute_of {
    my ($name, $status, %o) = @_;
    return { kind => 'dispute', dispute_policy => $o{policy} // 'notify', seen => { id => "du_$name", amount => $o{amount} // 1000,
        status => $status, reason => 'fraudulent', charge => charge_of($name, [])->{seen} } };
}

# One event from its delivery to its mark: event(ACCOUNT, {effect}, [subscriptions] or undef, at =>, ticket =>, id =>).
sub event {
    my ($self, $name, $effect, $subs, %o) = @_;
    my $id = $o{id} // 'evt_' . ++$self->{n};
    $self->store($id, at => $o{at} // $T0, customer => exists $o{customer} ? $o{customer} : "cus_$name", type => $effect->{kind});
    my $attempt = $self->take($id);
    my $ticket = $o{ticket} // ($subs || $effect->{seen} ? $self->ticket($name) : undef);
    my $account = $self->value('SELECT id FROM billing.accounts WHERE external_id = $1', $name);
    return $json->decode($self->value('SELECT billing.stripe_apply($1, $2, $3, $4, $5, $6, $7)', '', $id, $attempt, $account, $ticket,
        $subs && $json->encode($subs), $json->encode($effect)));
}

# plan status maintenance grace period_start period_end cancel_at trial_end, times relative to T0 in days.
sub state_of {
    my ($self, $name) = @_;
    my $a = $self->row(qq{SELECT p.plan_key, a.status, a.maintenance, billing.unix(grace_until) AS grace, billing.unix(period_start) AS ps,
        billing.unix(period_end) AS pe, billing.unix(cancel_at) AS ca, billing.unix(trial_end) AS te
        FROM billing.accounts a JOIN billing.plans p USING (plan_no) WHERE external_id = \$1}, $name);
    return join ' ', "$a->{plan_key} $a->{status} $a->{maintenance}", map { defined $a->{ $_->[1] }
        ? "$_->[0]=" . ($a->{ $_->[1] } - $T0) / $DAY : () } ['grace', 'grace'], ['from', 'ps'], ['to', 'pe'], ['cancel', 'ca'], ['trial', 'te'];
}

# remaining/used/bought of a credit type
sub credits {
    my ($self, $name, $type) = @_;
    return $self->value(q{SELECT remaining || '/' || used || '/' || bought FROM billing.credit_balances b
        JOIN billing.credit_types USING (credit_no) JOIN billing.accounts a ON a.id = b.account_id
        WHERE external_id = $1 AND credit_key = $2}, $name, $type // 'logo') // 'none';
}

# As the catalog's policies are from now on; rollover => [plans].
sub policies {
    my ($self, %policies) = @_;
    my $rollover = delete $policies{rollover} // [];
    my $catalog = catalog(policies => \%policies);
    $catalog->{plans}{$_}{rollover} = JSON::PP::true for @$rollover;
    return $self->{db}->apply_catalog($catalog);
}

# What deduct_credits will do: the plan's part first.
sub spend {
    my ($self, $name, $quantity, $type) = @_;
    $self->{d}->do(q{UPDATE billing.credit_balances b SET remaining = remaining - $1::bigint, used = used + $1::bigint,
        bought = least(bought, remaining - $1::bigint)
        FROM billing.accounts a, billing.credit_types t WHERE a.id = b.account_id AND t.credit_no = b.credit_no
        AND external_id = $2 AND credit_key = $3}, undef, $quantity, $name, $type // 'logo');
}

# topic of all outbox rows of an account since the last call
sub told {
    my ($self, $name) = @_;
    my $rows = $self->rows('SELECT o.id, o.topic, o.payload FROM billing.outbox o JOIN billing.accounts a ON a.id = o.account_id
        WHERE external_id = $1 AND o.id > $2 ORDER BY o.id', $name, $self->{told}{$name} // 0);
    $self->{told}{$name} = $rows->[-1]{id} if @$rows;
    return join ' ', map { $_->{topic} =~ s/^subscription://r } @$rows;
}

# Runs CODE->(world of its own connection, n) in so many processes at once; what each returned, in no order.
sub at_once {
    my ($self, $count, $code) = @_;
    pipe my $gate, my $open;
    my @children;
    for my $n (1 .. $count) {
        pipe my $from, my $to;
        my $pid = fork // die;
        if (!$pid) {
            close $open;
            my $mine = $self->again($n * 1000);
            readline $gate;
            my $said = eval { $code->($mine, $n) } // "error: $@";
            print {$to} $json->allow_nonref->encode($said);
            close $to;
            require POSIX;
            POSIX::_exit(0);
        }
        close $to;
        push @children, [$pid, $from];
    }
    close $gate;
    close $open;
    return map { my ($pid, $from) = @$_; local $/; my $text = readline $from; waitpid $pid, 0; $json->allow_nonref->decode($text) } @children;
}

# Until SQL says true.
sub wait_for {
    my ($self, $sql) = @_;
    my $until = time + 20;
    until ($self->{db}->psql($sql) =~ /^(t|[1-9]\d*)$/) {
        die "never: $sql" if time > $until;
        sleep 0.01;
    }
    return 1;
}

1;
