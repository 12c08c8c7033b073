# Promise (C11): a plan without paying is refused for good by a database that has seen anything of Stripe's live mode, whichever way
# it came: an event, a checkout, an import, a look at Stripe. What is of test mode, and a dry run, says nothing.
use strict;
use warnings;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
$w->account($_) for qw(dev other);

# What it said; then all is forgotten.
sub upgrade { return $w->value(q{SELECT billing.development_upgrade('dev', 'pro')}) }
sub after {
    my ($sql, @bind) = @_;
    $w->d->begin_work;
    $w->rows($sql, @bind);
    my $said = upgrade();
    $w->d->rollback;
    return $said;
}
sub event { return after('SELECT billing.stripe_event_store($1, $2, $3, NULL, $4, 1, NULL, $5, NULL)', '', 'evt_1', 'x', $_[0], '{}') }
sub session {
    return after(q{SELECT billing.checkout_opened('other', (SELECT intent FROM billing.checkout_begin('other', 'price_pro')), $1, 'https://x.example', NULL)}, $_[0]);
}
sub imported { return after('SELECT billing.customer_import($1, $2, NULL, NULL, $3, $4, $5)', 'cus_new', 'new', $_[0], 'test', $_[1] // 'f') }
sub looked {
    my ($mode, %o) = @_;
    my $subscription = sprintf '[{"id": "sub_1", "customer": "cus_other", "status": "%s", "prices": ["price_pro"]%s}]', $o{status} // 'active', $mode;
    return after('SELECT billing.stripe_look($1, $2, $3, $4, $5, NULL, NULL, $6)', 'other', 'cus_other', $o{dry} ? undef : $w->ticket('other'),
        $subscription, 'import', 'test');
}

is upgrade(), 'ok', 'where nobody pays';
is event('f'), 'ok', 'an event of test mode';
is event('t'), 'live', 'C11: an event of live mode';
is session('cs_test_a1'), 'ok', 'a checkout of test mode';
is session('cs_live_a1'), 'live', 'C11: a checkout of live mode';
is imported('f'), 'ok', 'a customer of test mode is imported';
is imported('t', 't'), 'ok', 'a dry run';
is imported('t'), 'live', 'C11: a customer of live mode is imported';
is looked(''), 'ok', 'a look at test mode';
is looked(', "livemode": true', dry => 1), 'ok', 'a dry one';
is looked(', "livemode": true'), 'live', 'C11: a look at live mode';
is looked(', "livemode": true', status => 'canceled'), 'live', 'C11: also one that finds nothing to change';
$w->store('evt_live', livemode => 't');
$w->d->do('DELETE FROM billing.webhook_events');
is upgrade(), 'live', 'C11: for good, whatever becomes of what was seen';
done_testing;
