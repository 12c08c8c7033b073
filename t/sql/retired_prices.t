# Promise (S8, W5, W6): a price that was in the catalog keeps meaning what it was sold as, whatever the catalog has become since: who
# pays late, or goes on paying, gets it.
use strict;
use warnings;
use Test::More;
use FindBin qw($Bin);
use Storable qw(dclone);
require "$Bin/stripe_world.pl";

my $w = StripeWorld->new;
my ($catalog, $sub) = (StripeWorld::catalog(), { kind => 'subscription' });
sub pack_at { my ($key, $id, $quantity, $credit) = @_; return { $key => { credit => $credit // 'logo', quantity => $quantity,
    price => { id => $id, amount => 1000, currency => 'usd' } } } }
sub applied { my (%change) = @_; my $c = { %{ dclone($catalog) }, %change }; return $w->db->apply_catalog($c) }
my $n = 0;
sub bought { my ($price) = @_; my $name = 'p' . ++$n; $w->account($name); $w->event($name, StripeWorld::pack_of($name, price => $price)); return $w->credits($name) }

# Packs.
is bought('price_pack'), '14/0/10', 'W5: a pack';
applied(packs => pack_at('logo_10', 'price_pack_2', 25));
is bought('price_pack'), '14/0/10', 'W5: paid after the catalog got another price: as it was sold';
is bought('price_pack_2'), '29/0/25', 'and the present one';
applied(packs => pack_at('logos', 'price_pack_2', 25));
is bought('price_pack_2'), '29/0/25', 'a pack that got another name keeps its price';
is $w->value(q{SELECT outcome || ' ' || pack FROM billing.resolve_price('price_pack_2', NULL, NULL)}), 'ok logos', 'which sells it under the new one';
is $w->value(q{SELECT outcome FROM billing.resolve_price('price_pack', NULL, NULL)}), 'unknown', 'a former price is not for sale';
my $two = { %{ pack_at('logos', 'price_pack_2', 25) }, %{ pack_at('clips', 'price_clips', 3, 'video') } };
applied(packs => $two);
applied(packs => { %{ pack_at('logos', 'price_clips', 25) }, %{ pack_at('clips', 'price_pack_2', 3, 'video') } });
is bought('price_clips'), '29/0/25', 'two that changed their prices with each other: as the catalog says';
ok !applied(packs => { %{ pack_at('logos', 'price_clips', 25) }, %{ pack_at('clips', 'price_pack_2', 3, 'video') } })->{changed}, 'once applied, applied';
$w->d->do(q{UPDATE billing.packs SET price_id = 'price_by_hand' WHERE pack_key = 'logos'});
applied(packs => {});
is bought('price_clips'), '29/0/25', 'nor does an edit by hand forget one';
is bought('price_by_hand'), '29/0/25', 'nor what it brought';
$w->d->do('DELETE FROM billing.packs');
is bought('price_pack'), '14/0/10', 'nor the end of the pack';

# Their credits. A type is needed as long as a price or a balance names it.
my %without = (credits => { logo => {} }, packs => {}, plans => dclone($catalog->{plans}));
delete $_->{credits}{video} for values %{ $without{plans} };
$w->account('v');
$w->event('v', $sub, [StripeWorld::sub_of('sub_v', 'active', 'agency')]);
ok eval { applied(%without); 1 }, 'a type of credits that the catalog drops' or diag $@;
$w->account('v2');
$w->event('v2', StripeWorld::pack_of('v2', price => 'price_pack_2'));
is $w->credits('v2', 'video'), '3/0/3', 'stays for its packs';
my $fresh = StripeWorld->new;
$fresh->account('b');
$fresh->d->do(q{INSERT INTO billing.credit_balances (account_id, credit_no)
    SELECT a.id, t.credit_no FROM billing.accounts a, billing.credit_types t WHERE a.external_id = 'b' AND credit_key = 'video'});
ok eval { $fresh->db->apply_catalog({ %$catalog, %without }); 1 }, 'and where an account has a balance of it' or diag $@;

# Plans.
$w = StripeWorld->new;
my %plans = %{ dclone($catalog->{plans}) };
$w->account('s');
$w->event('s', $sub, [StripeWorld::sub_of('sub_s', 'canceled', 'agency')]);
delete @plans{qw(pro agency)};
applied(plans => \%plans);
is $w->value(q{SELECT string_agg(plan_key, ' ' ORDER BY plan_key) FROM billing.plans WHERE NOT active}), 'agency pro',
    'plans that had a price stay, though nobody has them';
$w->account('q');
$w->event('q', $sub, [StripeWorld::sub_of('sub_q', 'active', 'pro')]);
is $w->state_of('q'), 'pro active none from=0 to=30', 'W6: who has paid for one has it';
is $w->credits('q'), '50/0/0', 'with its credits';
is $w->value(q{SELECT outcome FROM billing.resolve_price('pro', NULL, NULL)}), 'unknown', 'and nobody can buy it any more';
$plans{starter}{price}{month}{id} = 'price_starter_2';
applied(plans => \%plans);
$w->event('q', $sub, [StripeWorld::sub_of('sub_q', 'active', 'starter')]);
like $w->state_of('q'), qr/^starter active/, 'the former price of a plan that goes on';
is $w->value(q{SELECT count(*) FROM billing.outbox WHERE topic = 'alarm'}), 0, 'no alarm about any of these';
done_testing;
