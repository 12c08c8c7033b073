# Promise (S4, I2): the workers' role stores events and begins checkouts; only the jobs' role processes; the application's role says
# who its accounts' members are; none touches a table; replaying and everything inside is the owner's.
use strict;
use warnings;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
$w->account('a');
$w->db->psql("CREATE ROLE $_->[0] LOGIN" . ($_->[1] ? " IN ROLE $_->[1]" : '')) for ['gate', 'billing_gate'], ['jobs', 'billing_jobs'], ['app', 'billing_app'],
    ['stranger'];
my %as = map { $_ => $w->db->dbi(user => $_) } qw(gate jobs app stranger);

my %calls = (
    gate => {
        stripe_event_store => q{SELECT billing.stripe_event_store('', 'evt_' || gen_random_uuid(), 't', NULL, false, 1, 'cus_a', '\x7b7d', NULL)},
        customer_link      => q{SELECT * FROM billing.customer_link('a', 'cus_a')},
        customer_unlink    => q{SELECT billing.customer_unlink('a', 'cus_other')},
        customer_of        => q{SELECT billing.customer_of('a')},
        resolve_price      => q{SELECT * FROM billing.resolve_price('pro', NULL, false)},
        checkout_begin     => q{SELECT * FROM billing.checkout_begin('a', 'price_pro')},
        checkout_opened    => q{SELECT billing.checkout_opened('a', 'i', 'cs', 'u', NULL)},
        checkout_failed    => q{SELECT billing.checkout_failed('i')},
        customer_begin     => q{SELECT * FROM billing.customer_begin('a', 'a@b.example', 'A')},
        checkout_closed    => q{SELECT billing.checkout_closed('cs', 'expired')},
    },
    members => { member_role => q{SELECT billing.member_role('a', 'ann')} },
    app     => { member_set => q{SELECT billing.member_set('a', 'ann', 'owner')} },
    jobs => {
        stripe_events_unknown => q{SELECT * FROM billing.stripe_events_unknown('{evt}')},
        stripe_suspects     => q{SELECT * FROM billing.stripe_suspects('[]', 0, 0)},
        credits_months      => q{SELECT billing.credits_months(1)},
        stripe_look         => q{SELECT billing.stripe_look('a', 'cus_a', NULL, '[]', 'reconcile', NULL, NULL, 'x')},
        stripe_purge        => q{SELECT billing.stripe_purge('1 day', 1)},
        stripe_pass_begin   => q{SELECT * FROM billing.stripe_pass_begin('events', '1 h')},
        stripe_event_claim  => q{SELECT * FROM billing.stripe_event_claim(10, '1 min')},
        stripe_event_failed => q{SELECT billing.stripe_event_failed('', 'evt', 1, 'x', true)},
        stripe_event_ignore => q{SELECT billing.stripe_event_ignore('', 'evt', 1, 'x')},
        stripe_event_park   => q{SELECT billing.stripe_event_park('', 'evt', 1, 'cus', NULL)},
        customer_ticket     => q{SELECT * FROM billing.customer_ticket('cus_a', NULL)},
        stripe_apply        => q{SELECT billing.stripe_apply('', 'evt_applied', 1, 1, NULL, NULL, '{"kind": "none"}')},
    },
    nobody => {
        events_replay       => q{SELECT billing.events_replay(NULL, NULL, 'x')},
        events_list         => q{SELECT billing.events_list(NULL, NULL, NULL, 1)},
        event_show          => q{SELECT * FROM billing.event_show('evt', true)},
        customer_import     => q{SELECT billing.customer_import('cus_x', 'x', NULL, NULL, false, 'x', true)},
        credits_buy         => q{SELECT billing.credits_buy(1, 'price_pack', 1, 'cs', NULL)},
        customer_bind       => q{SELECT billing.customer_bind(1, 'cus')},
        outbox_put          => q{SELECT billing.outbox_put('t', 'k', 1, '{}')},
    },
);
my %may = (gate => [qw(gate members)], jobs => [qw(gate members jobs)], app => [qw(members app)], stranger => []);
for my $role (sort keys %may) {
    for my $group (sort keys %calls) {
        for my $name (sort keys %{ $calls{$group} }) {
            if ($name eq 'stripe_apply') {
                $w->d->do('DELETE FROM billing.webhook_events');
                $w->store('evt_applied');
                $w->take('evt_applied');
            }
            my $allowed = grep { $_ eq $group } @{ $may{$role} };
            my $worked = eval { $as{$role}->do($calls{$group}{$name}); 1 };
            is !!$worked, !!$allowed, "$role " . ($allowed ? 'may' : 'may not') . " call $name" or diag $@;
            is $as{$role}->state, '42501', "$role: $name is a matter of permission" if !$worked;
        }
    }
}

is $w->value(q{SELECT billing.member_role('a', 'ann')}), 'owner', 'what the application has said of a member counts';
is $w->value(q{SELECT actor FROM billing.audit_log WHERE action = 'role.change'}), 'app', 'and is audited as its own (S11)';
is $w->value(q{SELECT string_agg(c.relname, ' ') FROM pg_class c, unnest('{gate,jobs,app,stranger}'::text[]) r,
    unnest('{SELECT,INSERT,UPDATE,DELETE}'::text[]) p WHERE relnamespace = 'billing'::regnamespace AND relkind IN ('r', 'v')
    AND has_table_privilege(r, c.oid, p)}), undef, 'no table is open to any of them';
is $w->value(q{SELECT string_agg(proname, ' ') FROM pg_proc p, unnest('{gate,jobs,app}'::text[]) r WHERE pronamespace = 'billing'::regnamespace
    AND has_function_privilege(r, p.oid, 'EXECUTE') AND NOT prosecdef}), undef, 'what they may call runs with its owner\'s rights';
is $w->value(q{SELECT string_agg(proname, ' ') FROM pg_proc WHERE pronamespace = 'billing'::regnamespace AND prosecdef
    AND NOT coalesce(proconfig::text LIKE '%search_path=billing, pg_temp%', false)}), undef, 'with a pinned search_path';
is $w->value(q{SELECT string_agg(DISTINCT proname, ' ') FROM pg_proc p LEFT JOIN LATERAL aclexplode(p.proacl) a ON true
    WHERE pronamespace = 'billing'::regnamespace AND (p.proacl IS NULL OR a.grantee = 0)}), undef, 'nothing is open to everybody';
done_testing;
