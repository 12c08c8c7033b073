# Promise (W2): a delivered event is stored once, however often and however parallel it comes, byte for byte as it was signed;
# the jobs are woken for what they have to do and for nothing else.
use strict;
use warnings;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;

my @said = $w->at_once(50, sub { $_[0]->store('evt_same', customer => 'cus_1', payload => '{"n": 1}') });
is scalar(grep { $_ eq 'stored' } @said), 1, '50 deliveries at once: one is stored';
is scalar(grep { $_ eq 'duplicate' } @said), 49, 'and 49 are told that they are repeated';
is $w->value('SELECT count(*) FROM billing.webhook_events'), 1, 'one row';

is $w->store('evt_same'), 'duplicate', 'later too';
is $w->store('evt_same', stripe_account => 'acct_2'), 'stored', 'an event of another Stripe account is another event';

my $raw = qq({"name":"\\u0000 \x{c3}\x{28} '\\\\"}\r\n\0);
$w->store('evt_raw', payload => $raw, type => 'customer.updated', customer => 'cus_7', at => 1700000001);
my $e = $w->row(q{SELECT encode(payload, 'hex') AS payload, type, api_version, livemode, billing.unix(stripe_created) AS created,
    customer_id, account_id, status, attempts FROM billing.webhook_events WHERE event_id = 'evt_raw'});
is $e->{payload}, unpack('H*', $raw), 'the signed bytes, whatever they are';
is "@$e{qw(type api_version created customer_id status attempts)}", 'customer.updated 2026-02-25.clover 1700000001 cus_7 received 0',
    'and what the endpoint read in them';
is $w->store('evt_thin', at => undef), 'stored', 'an event without a time in seconds';

my $listener = $w->db->dbi;
$listener->do('LISTEN billing_inbox');
sub woken { $listener->do('SELECT 1'); my $n = 0; $n++ while $listener->pg_notifies; return $n }
$w->store('evt_new');
is woken(), 1, 'a new event wakes the jobs';
$w->store('evt_new');
is woken(), 0, 'a repeated one does not';
is $w->store('evt_test', ignored => 'test event at a live endpoint'), 'stored', 'an event to be ignored is stored';
is woken(), 0, 'without waking anybody';
is $w->value(q{SELECT status || ': ' || last_error FROM billing.webhook_events WHERE event_id = 'evt_test'}),
    'ignored: test event at a live endpoint', 'with the reason';
is $w->value(q{SELECT count(*) FROM billing.stripe_event_claim(100, '1 min') WHERE event_id = 'evt_test'}), 0, 'and is never handed out';
done_testing;
