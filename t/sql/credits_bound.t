# Promise (W6, W7, W8): no sequence of up, down, cancel, coming back and renewing makes more available in a period than the largest plan
# held in it plus what was bought, by the default policy and by prorate; reset, free_realloc and rollover waive that, and nothing ever
# goes below 0. The ledger sums up to what was spent and is left.
use strict;
use warnings;
use JSON::PP;
use Test::More;
use FindBin qw($Bin);
require "$Bin/stripe_world.pl";

my ($T0, $DAY) = (StripeWorld::t0(), StripeWorld::day());
my $sub = { kind => 'subscription' };
my $w = StripeWorld->new;
my %policies = (
    keep_used => {}, prorate => { credits => 'prorate' }, reset => { credits => 'reset' },
    free_realloc => { credits => 'prorate', free_realloc => JSON::PP::true }, rollover => { rollover => ['starter', 'pro'] },
);
my %bound = map { $_ => 1 } qw(keep_used prorate);
my %gives = (logo => { free => 4, starter => 20, pro => 50, agency => 200 }, video => { free => 0, starter => 0, pro => 10, agency => 50 });
my @prices = qw(starter pro pro_year agency);
my $seed = $ENV{BILLING_SEED} // 1;    # another one looks elsewhere, and may miss a kind of event
srand $seed;

sub su { my ($id, $price, %o) = @_; return StripeWorld::sub_of("sub_$id", $o{status} // 'active', $price, %o) }
sub plan_of { return $_[0]{prices}[0] =~ /price_([a-z]+)/ ? $1 : die }
sub invoice {
    my ($id, $reason, $price, $start, $invoice) = @_;
    return { kind => 'invoice_paid', invoice => $invoice, subscription => "sub_$id", billing_reason => $reason, price => "price_$price",
        period_start => $start, period_end => $start + 30 * $DAY, amount => 1, currency => 'usd', attempt => 1 };
}

# The oracle knows only what it did: which plans the account held, what it spent and bought.
sub life {
    my ($name, $bounded, $seen) = @_;
    $w->account($name);
    my ($day, $period, $births, %subs, @log, @packs, @last) = (0, 0, 0);
    my (%held, %spent, %bought, %refunded, %total);    # %total: of all periods
    my $begin = sub { %held = map { $_ => $_[0] ? 0 : $gives{$_}{free} } keys %gives; %spent = map { $_ => 0 } keys %gives };
    $begin->(0);
    $bought{$_} = $total{$_} = 0 for keys %gives;
    for my $step (1 .. 30) {
        $day += 0.7;
        my $now = $T0 + int(($period * 100 + $day) * $DAY);
        my @live = grep { $subs{$_}{status} =~ /^(active|trialing|past_due)$/ } sort keys %subs;
        my @open = grep { $subs{$_}{status} ne 'canceled' } sort keys %subs;
        my $dice = rand;
        my ($what, $effect) = ('look', $sub);
        if ($dice < 0.25) {
            my $type = (qw(logo logo video))[rand 3];
            my ($left) = $w->credits($name, $type) =~ /^(\d+)/ or next;
            my $q = rand() < 0.3 ? $left : int rand($left + 1);
            $w->spend($name, $q, $type);
            $spent{$type} += $q;
            $total{$type} += $q;
            push @log, "spend $q $type";
            next;
        }
        if ($dice < 0.40 && @open < 2) {
            my ($id, $price) = ("${name}_" . ++$births, $prices[rand @prices]);
            $subs{"sub_$id"} = su($id, $price, start => $now, created => $now);
            $subs{"sub_$id"}{status} = rand() < 0.2 ? 'incomplete' : rand() < 0.2 ? 'trialing' : 'active';
            $effect = { kind => 'checkout_completed', session => "cs_$id", mode => 'subscription', payment_status => 'paid' } if rand() < 0.5;
            $what = "subscribe $id $price $subs{\"sub_$id\"}{status}";
        }
        elsif ($dice < 0.62 && @open) {
            my ($id, $price) = ($open[rand @open], $prices[rand @prices]);
            $subs{$id}{prices} = ["price_$price"];
            $what = "change $id to $price";
        }
        elsif ($dice < 0.74 && @open) {
            my $id = $open[rand @open];
            @{ $subs{$id} }{qw(status ended_at)} = ('canceled', $now);
            $what = "cancel $id";
        }
        elsif ($dice < 0.80 && @open) {
            my $id = $open[rand @open];
            $subs{$id}{status} = (qw(past_due unpaid paused active active))[rand 5];
            @{ $subs{$id} }{qw(period_start period_end)} = ($now, $now + 30 * $DAY) if $subs{$id}{period_end} <= $now;    # as Stripe has it
            $what = "$id $subs{$id}{status}";
        }
        elsif ($dice < 0.86) {
            $effect = StripeWorld::pack_of("${name}_$step");
            push @packs, "${name}_$step";
            $bought{logo} += 10;
            $what = 'buy';
        }
        elsif ($dice < 0.89 && @packs) {
            my $pack = $packs[rand @packs];
            $effect = StripeWorld::charge_of($pack, [[1, 300, rand() < 0.5 ? 'failed' : 'succeeded'], [2, int rand 700]]);
            $refunded{$pack} = 1;
            $what = "refund $pack";
        }
        elsif ($dice < 0.94 && @open) {
            my $reason = (qw(subscription_create subscription_update manual))[rand 3];
            (my $id = $open[rand @open]) =~ s/^sub_//;
            $effect = invoice($id, $reason, $prices[rand @prices], $now, "in_${name}_$step");
            $what = "paid $reason";
        }
        elsif ($dice < 0.96 && @live == 1 && $day < 20) {
            # A renewal begins a new period: what the account holds from here on counts anew.
            my ($id) = @live;
            $period++;
            $day = 0;
            $now = $T0 + $period * 100 * $DAY;
            $subs{$id}{status} = 'active';
            @{ $subs{$id} }{qw(period_start period_end)} = ($now, $now + 30 * $DAY);
            $effect = invoice($id =~ s/^sub_//r, 'subscription_cycle', plan_of($subs{$id}), $now, "in_${name}_c$period");
            $begin->(1);
            ($bought{$_}) = $w->credits($name, $_) =~ m{/(\d+)$} ? $1 : 0 for keys %gives;
            $bought{logo} += 10 * keys %refunded;    # a refund may fail afterwards: then they come back
            $what = "renew $id";
        }
        my @list = sort { $a->{id} cmp $b->{id} } values %subs;
        for my $s (grep { $_->{status} =~ /^(active|trialing|past_due)$/ } @list) {
            for (keys %gives) { my $gives = $gives{$_}{ plan_of($s) }; $held{$_} = $gives if $gives > $held{$_} }
        }
        $w->event($name, $effect, \@list, at => $now);
        $w->event($name, $last[0], $last[1], ticket => 0) if @last && rand() < 0.2;    # an old one again, its look long overtaken
        $w->d->do('SELECT billing.credits_months(10, to_timestamp($1))', undef, $now) if rand() < 0.2;
        @last = ($effect, \@list);
        push @log, $what;
        $seen->{ $what =~ /^(\w+)/ ? $1 : '' }++;
        for my $type (keys %gives) {
            my ($left) = $w->credits($name, $type) =~ /^(\d+)/ or next;
            return "$name: $left + $spent{$type} $type of $held{$type} + $bought{$type} after " . join ', ', @log
                if $bounded && $left + $spent{$type} > $held{$type} + $bought{$type};
            my $sum = $w->value(q{SELECT sum(quantity - coalesce((metadata ->> 'lapsed')::bigint, 0)) FROM billing.credit_ledger l
                JOIN billing.accounts a ON a.id = account_id JOIN billing.credit_types USING (credit_no)
                WHERE external_id = $1 AND credit_key = $2}, $name, $type) // 0;
            return "$name: the ledger says $sum $type, spent $total{$type}, left $left after " . join ', ', @log if $sum != $total{$type} + $left;
        }
    }
    return;
}

for my $policy (sort keys %policies) {
    $w->policies(%{ $policies{$policy} });
    my $lives = $ENV{BILLING_LIVES} // 30;
    my (%seen, @broken);
    push @broken, eval { life("${policy}_$_", $bound{$policy}, \%seen) } // $@ || () for 1 .. $lives;
    is join("\n", @broken), '', "$policy, $lives sequences of 30 steps (seed $seed): "
        . ($bound{$policy} ? 'never more than the largest plan held and what was bought; ' : '') . 'the ledger sums up';
    ok !(grep { !$seen{$_} } qw(subscribe change cancel buy paid renew look)), "$policy: of every kind" or diag explain \%seen;
}
done_testing;
