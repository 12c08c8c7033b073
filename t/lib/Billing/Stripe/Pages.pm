# The pages that Stripe would host: one to pay a checkout session at, one for the portal. Plain HTML, forms, no scripts.
package Billing::Stripe::Pages;
use v5.36;
use Billing::Stripe::Clock ();
use Billing::Stripe::Error qw(caught);
use Billing::Stripe::Fulfilment ();
use Billing::Stripe::Lifecycle ();
use Billing::Stripe::Portal ();
use Mojo::Util qw(xml_escape);
use POSIX qw(strftime);

my $style = <<'END';
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 28rem; margin: 3rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } small { opacity: .7; }
table { width: 100%; border-collapse: collapse; margin: 1rem 0; }
td { padding: .4rem 0; border-bottom: 1px solid #8884; } td + td { text-align: right; }
form { margin: .6rem 0; } button, select { font: inherit; padding: .5rem 1rem; border-radius: .4rem; border: 1px solid #8888; }
button.main { background: #4f46e5; border-color: #4f46e5; color: #fff; width: 100%; } [role=alert] { color: #c2410c; font-weight: 600; }
END

sub show($account, $c, $path) {
    Billing::Stripe::Clock::settle($account);
    shown($account, $c, $path);
    Billing::Stripe::Clock::settle($account);
    return;
}

sub shown($account, $c, $path) {
    my $posted = $c->req->method eq 'POST';
    if ($path =~ m{^/c/pay/(cs_\w+)$} && (my $session = $account->find('checkout.session', $1))) {
        return $posted ? pay($account, $c, $session) : page($c, 'Checkout', checkout($session));
    }
    if ($path =~ m{^/p/session/(\w+)$}) {
        my $session = Billing::Stripe::Portal::by_secret($account, $1)
            // return page($c, 'Link expired', '<p>This link has expired. Ask for a new one where you came from.</p>', 404);
        return $posted ? act($account, $c, $session) : page($c, 'Your subscription', portal($account, $session));
    }
    return page($c, 'Nothing here', '<p>The stand-in for Stripe has no such page.</p>', 404);
}

sub page($c, $title, $body, $status = 200) {
    my $headers = $c->res->headers;
    $headers->header('Cache-Control' => 'no-store');
    $headers->header('Content-Security-Policy' => "default-src 'none'; style-src 'unsafe-inline'; form-action *; frame-ancestors 'none'");
    $headers->header('Referrer-Policy' => 'no-referrer');
    $c->render(status => $status, format => 'html', text => <<"END");
<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>$title</title><style>
$style</style></head>
<body><h1>$title</h1>
$body
<p><small>A stand-in for Stripe, for tests and demonstrations. No money moves.</small></p></body></html>
END
    return;
}

sub go($c, $url) {
    $c->res->headers->header('Cache-Control' => 'no-store');
    $c->res->headers->location($url);
    $c->render(data => '', status => 303);
    return;
}

sub money($amount, $currency) { sprintf '%s %.2f', uc $currency, $amount / 100 }
sub date($time) { strftime('%Y-%m-%d', gmtime $time) }
sub button($do, $text, $class = '') { qq{<button name="do" value="$do" class="$class">} . xml_escape($text) . '</button>' }
sub form($inside) { qq{<form method="post">$inside</form>} }
sub price_text($price, $quantity = 1) { money($price->{unit_amount} * $quantity, $price->{currency}) . " / $price->{recurring}{interval}" }

# --- paying ---

sub checkout($session, $problem = '') {
    return '<p>This has been paid.</p>' if $session->{status} eq 'complete';
    return '<p>This checkout has expired.</p>' if $session->{status} eq 'expired';
    my $rows = join '', map {
        my $recurring = $_->{price}{recurring};
        my $each = $recurring ? " / $recurring->{interval}" : '';
        '<tr><td>' . xml_escape("$_->{description}" . ($_->{quantity} > 1 ? " x $_->{quantity}" : '')) . '</td><td>'
            . xml_escape(money($_->{amount_total}, $_->{currency}) . $each) . '</td></tr>';
    } $session->{_items}->@*;
    my $total = xml_escape(money($session->{amount_total}, $session->{currency}));
    my $email = ($session->{customer_details} // {})->{email} // $session->{customer_email};
    my $whom = defined $email ? '<p>' . xml_escape($email) . '</p>' : '';
    my $alert = $problem ? '<p role="alert">' . xml_escape($problem) . '</p>' : '';
    my $cancel = $session->{cancel_url} ? form(button('cancel', 'Cancel')) : '';
    return <<"END";
$alert$whom<table>$rows<tr><td><strong>Due today</strong></td><td><strong>$total</strong></td></tr></table>
<form method="post">
<p><label>Pay by <select name="by"><option value="card">card 4242, succeeds</option><option value="declined">card 0002, declined</option>
<option value="later">card 0341, fails at the renewal</option><option value="debit">bank debit, known later</option></select></label></p>
@{[button('pay', 'Pay', 'main')]}
</form>
$cancel
END
}

my %ways = (card => {}, declined => {card => 'declines'}, later => {later => 'declines'}, debit => {delayed => 1});

sub pay($account, $c, $session) {
    return page($c, 'Checkout', checkout($session), 410) if $session->{status} ne 'open';
    return go($c, $session->{cancel_url}) if ($c->req->body_params->param('do') // '') eq 'cancel' && $session->{cancel_url};
    my $way = $ways{$c->req->body_params->param('by') // 'card'} // {};
    if (!eval { Billing::Stripe::Fulfilment::complete($account, $session, %$way); 1 }) {
        my $error = caught($@) // die $@;
        return page($c, 'Checkout', checkout($session, $error->{message}), $error->status);
    }
    return go($c, $session->{success_url} =~ s/\{CHECKOUT_SESSION_ID\}/$session->{id}/gr);
}

# --- the portal ---

sub portal($account, $session, $problem = '') {
    my @parts = $problem ? '<p role="alert">' . xml_escape($problem) . '</p>' : ();
    my $configuration = $account->get('billing_portal.configuration', $session->{configuration});
    my $flow = $session->{flow} ? $session->{flow}{type} : '';
    my $only = $session->{flow} && $session->{flow}{$flow} ? $session->{flow}{$flow}{subscription} : undef;
    for my $subscription (grep { $_->{customer} eq $session->{customer} && (!$only || $_->{id} eq $only) } $account->all('subscription')) {
        next if Billing::Stripe::Lifecycle::over($subscription);
        push @parts, of_subscription($account, $subscription, $configuration->{features}, $flow);
    }
    push @parts, '<p>There is no subscription.</p>' if @parts == ($problem ? 1 : 0);
    push @parts, form(button('card', 'New card') . ' ' . button('bad_card', 'New card that fails'))
        if $configuration->{features}{payment_method_update}{enabled} && ($flow eq '' || $flow eq 'payment_method_update');
    push @parts, '<p><a href="' . xml_escape($session->{return_url}) . '">Back</a></p>' if $session->{return_url};
    return join "\n", @parts;
}

sub of_subscription($account, $subscription, $features, $flow) {
    my ($item) = Billing::Stripe::Lifecycle::items($subscription);
    my $name = $account->get('product', $item->{price}{product})->{name};
    my $price = price_text($item->{price}, $item->{quantity});
    my $until = $subscription->{cancel_at} ? 'ends on ' . date($subscription->{cancel_at})
        : 'renews on ' . date(Billing::Stripe::Lifecycle::period_end($subscription));
    my $id = qq{<input type="hidden" name="subscription" value="$subscription->{id}">};
    my $html = '<h2>' . xml_escape($name) . '</h2><p>' . xml_escape("$price, $subscription->{status}, $until") . '</p>';
    if ($features->{subscription_cancel}{enabled} && $flow =~ /^(?:|subscription_cancel)$/) {
        $html .= form($id . ($subscription->{cancel_at} ? button('keep', 'Keep the plan') : button('cancel', 'Cancel the plan')));
    }
    my @others = grep { $_->{recurring} && $_->{active} && $_->{id} ne $item->{price}{id} } $account->all('price');
    if (@others && $features->{subscription_update}{enabled} && $flow =~ /^(?:|subscription_update(?:_confirm)?)$/) {
        my $options = join '', map {
            my $text = $account->get('product', $_->{product})->{name} . ', ' . price_text($_);
            qq{<option value="$_->{id}">} . xml_escape($text) . '</option>';
        } @others;
        $html .= form(qq{$id<label>Change to <select name="price">$options</select></label> } . button('change', 'Change'));
    }
    return $html;
}

sub act($account, $c, $session) {
    my $form = $c->req->body_params;
    my $customer = $account->get('customer', $session->{customer});
    my $subscription = $account->find('subscription', $form->param('subscription') // '');
    $subscription = undef if $subscription && $subscription->{customer} ne $customer->{id};
    my %acts = (
        card => sub { Billing::Stripe::Portal::new_card($account, $customer) },
        bad_card => sub { Billing::Stripe::Portal::new_card($account, $customer, 'declines') },
        cancel => sub { Billing::Stripe::Portal::cancel($account, $subscription) },
        keep => sub { Billing::Stripe::Portal::keep($account, $subscription) },
        change => sub { Billing::Stripe::Portal::change_plan($account, $subscription, $form->param('price') // '') },
    );
    my $do = $form->param('do') // '';
    my $act = $acts{$do};
    $act = undef if $do =~ /^(?:cancel|keep|change)$/ && !$subscription;
    return page($c, 'Your subscription', portal($account, $session, 'There is nothing to do.'), 400) if !$act;
    if (!eval { $act->(); 1 }) {
        my $error = caught($@) // die $@;
        return page($c, 'Your subscription', portal($account, $session, $error->{message}), $error->status);
    }
    my $after = $session->{flow} ? $session->{flow}{after_completion} : {};
    return go($c, $after->{redirect}{return_url}) if ($after->{type} // '') eq 'redirect' && $after->{redirect}{return_url};
    return go($c, $c->req->url->path->to_string);
}

1;
