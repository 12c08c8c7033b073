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

# Several in one statement: [stripe_account, event, ignored, payload], ...
sub store_all {
    my ($d, @events) = @_;
    my $all = join '', map { $_->[3] } @events;
    return join ' ', map { $_->[0] } @{ $d->selectall_arrayref('SELECT fresh::int FROM billing.stripe_events_store($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ORDER BY n',
        undef, [map { $_->[0] } @events], [map { $_->[1] } @events], [('test') x @events], [(undef) x @events], [('f') x @events], [(1) x @events],
        [map { undef } @events], [map { $_->[2] } @events], [map { length $_->[3] } @events], '\\x' . unpack('H*', $all)) };
}
my @several = (['', 'evt_z', undef, "\0z"], ['', 'evt_new', undef, 'again'], ['', 'evt_y', 'of no use', ''], ['', 'evt_z', undef, 'second'], ['acct_9', 'evt_z', 'foreign', 'last']);
woken();
is store_all($w->d, @several), '1 0 1 0 1', 'several at once: each has its answer, also when it is there twice';
is woken(), 1, 'and the jobs are woken once';
is_deeply [map { $w->value(q{SELECT encode(payload, 'escape') FROM billing.webhook_events WHERE stripe_account = $1 AND event_id = $2}, @$_) }
    ['', 'evt_z'], ['', 'evt_y'], ['acct_9', 'evt_z'], ['', 'evt_new']], ['\\000z', '', 'last', '{}'], 'each with its own bytes';
is store_all($w->d, ['', 'evt_x', 'of no use', '']), '1', 'events of which none is of use';
is woken(), 0, 'wake nobody';
is store_all($w->d), '', 'no event at all';

# Hosts are told the same events in other orders.
my @same = map { ['', sprintf('evt_many_%02d', $_), undef, 'x'] } 1 .. 40;
my @fresh = $w->at_once(8, sub { my ($world, $n) = @_; join ' ', map { store_all($world->d, $n % 2 ? @same : reverse @same) } 1 .. 5 });
is scalar(grep { $_ } map { split ' ' } @fresh), 40, 'eight hosts with the same events: each is new once, and nobody is in the way of another';

done_testing;
