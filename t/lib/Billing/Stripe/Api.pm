# The API itself, from a request to its answer: key, version, form, idempotency, parameters, the resource's own code, rendering.
# Knows nothing of HTTP servers: Server passes what came and sends what comes back.
package Billing::Stripe::Api;
use v5.36;
use Billing::Stripe::Catalog ();
use Billing::Stripe::Checkout ();
use Billing::Stripe::Clock ();
use Billing::Stripe::Customers ();
use Billing::Stripe::Entitlements ();
use Billing::Stripe::Error qw(refuse caught);
use Billing::Stripe::Events ();
use Billing::Stripe::Expand ();
use Billing::Stripe::Form qw(decode_form);
use Billing::Stripe::Invoices ();
use Billing::Stripe::Meters ();
use Billing::Stripe::Payments ();
use Billing::Stripe::Portal ();
use Billing::Stripe::Schema qw(check);
use Billing::Stripe::Subscriptions ();
use Billing::Stripe::Versions ();
use Mojo::JSON qw(encode_json);
use Mojo::Util qw(b64_decode);

my @resources = map { "Billing::Stripe::$_" } qw(Customers Catalog Checkout Portal Subscriptions Invoices Payments Events Meters Entitlements);
my @shown = qw(stripe-version idempotency-key content-type user-agent stripe-account);    # headers in the log of calls
my $key_age = 86400;    # Stripe may forget an idempotency key after a day; here it does

# account => ..., schemas => Stripe's own by "METHOD /path" (undef: only those of the resources hold).
sub new($class, %option) {
    my $self = bless {account => $option{account}, schemas => $option{schemas}, log => [], saved => {}, routes => []}, $class;
    for my $route (map { $_->routes } @resources) {
        my ($method, $path, $schema, $code) = @$route;
        my $pattern = quotemeta($path) =~ s/\\:id/([^\/]+)/gr;
        push $self->{routes}->@*, {method => $method, path => $path, pattern => qr/^$pattern$/, schema => $schema, code => $code};
    }
    return $self;
}

sub account($self) { $self->{account} }
sub calls($self) { $self->{log} }

# --- a call, in steps ---

# Notes the call. %request: method, path, query, body, headers (lower case).
sub begin($self, %request) {
    my $headers = $request{headers};
    my $call = {
        %request, id => $self->{account}->new_id('req_', 14), at => $self->{account}->now, status => 0,
        version => $headers->{'stripe-version'} // $self->{account}{version}, key => $headers->{'idempotency-key'},
    };
    $call->{seen} = {
        request_id => $call->{id}, at => $call->{at}, method => $call->{method}, path => $call->{path}, status => 0, params => {},
        headers => {map { $_ => $headers->{$_} } grep { defined $headers->{$_} } @shown},
        authorization => ($headers->{authorization} // 'none') =~ s/ .*//r,
    };
    push $self->{log}->@*, $call->{seen};
    return $call;
}

# Who calls, and whether this has been asked before: true when the call is to be carried out, else it is answered.
sub admit($self, $call) {
    my $admitted = $self->guarded($call, sub {
        $self->check_caller($call);
        my $text = $call->{method} eq 'POST' ? join '&', grep { length } $call->{query}, $call->{body} : $call->{query};
        $call->{params} = decode_form($text);
        $call->{seen}{params} = with_lists($call->{params});
        return 1;
    });
    return $admitted && $self->reserve($call);
}

sub check_caller($self, $call) {
    my $headers = $call->{headers};
    my $key = key_of($headers->{authorization} // '');
    refuse('You did not provide an API key. You need to provide your API key in the Authorization header, using Bearer auth (e.g. '
        . "'Authorization: Bearer YOUR_SECRET_KEY'). See https://stripe.com/docs/api#authentication for details.", status => 401)
        if !length $key;
    refuse('Invalid API Key provided: ' . substr($key, 0, 8) . '*' x 12 . substr($key, -4), status => 401) if $key ne $self->{account}{key};
    refuse("Invalid Stripe API version: $call->{version}. You may only send a Stripe-Version that exists.", code => 'invalid_api_version')
        if !Billing::Stripe::Versions::known($call->{version});
    refuse('Idempotency keys may have up to 255 characters.') if length($call->{key} // '') > 255;
    refuse('Invalid request (check that your POST content type is application/x-www-form-urlencoded). If you have any questions, we can '
        . 'help at https://support.stripe.com/.') if $call->{method} eq 'POST' && length $call->{body}
        && ($headers->{'content-type'} // '') !~ m{^application/x-www-form-urlencoded\b}i;
    return;
}

sub key_of($authorization) {
    return $1 if $authorization =~ /^Bearer\s+(\S+)\s*$/i;
    return b64_decode($1) =~ s/:.*//sr if $authorization =~ /^Basic\s+(\S+)\s*$/i;
    return '';
}

# Lists as lists, for those who read the log.
sub with_lists($value) {
    return $value if ref $value ne 'HASH';
    my @keys = sort keys %$value;
    my $list = @keys && !grep { !/^\d+$/ } @keys;
    return [map { with_lists($value->{$_}) } sort { $a <=> $b } @keys] if $list;
    return {map { $_ => with_lists($value->{$_}) } @keys};
}

# --- idempotency ---

sub reserve($self, $call) {
    return 1 if $call->{method} ne 'POST' || !defined $call->{key};
    my $print = encode_json([$call->{method}, $call->{path}, $call->{params}]);
    my $saved = $self->{saved}{$call->{key}};
    $saved = undef if $saved && !$saved->{running} && $saved->{at} <= $self->{account}->now - $key_age;
    if ($saved && $saved->{print} ne $print) {
        return $self->refused($call, sub {
            refuse('Keys for idempotent requests can only be used with the same parameters they were first used with. Try using a key '
                . "other than '$call->{key}' if you meant to execute a different request.", type => 'idempotency_error');
        });
    }
    if ($saved && $saved->{running}) {
        return $self->refused($call, sub {
            refuse('There is currently another in-progress request using this Idempotent Key (that probably means you submitted twice, and '
                . "the other request is still going through): $call->{key}",
                status => 409, type => 'idempotency_error', code => 'idempotency_key_in_use');
        });
    }
    if ($saved) {
        @$call{qw(status answer)} = @$saved{qw(status answer)};
        $call->{answer_headers} = {%{$saved->{headers}}, 'Idempotent-Replayed' => 'true', 'Original-Request' => $saved->{request}};
        $call->{seen}{replayed} = 1;
        return 0;
    }
    $self->{saved}{$call->{key}} = {print => $print, running => 1, at => $self->{account}->now, request => $call->{id}};
    return 1;
}

sub refused($self, $call, $code) {
    $self->guarded($call, $code);
    return 0;
}

# What was carried out is kept for the key; what failed validation is not.
sub keep($self, $call, $keep) {
    my $saved = defined $call->{key} ? $self->{saved}{$call->{key}} : undef;
    return if !$saved || $saved->{request} ne $call->{id};
    if ($keep) {
        @$saved{qw(status answer headers running)} = ($call->{status}, $call->{answer}, {%{$call->{answer_headers} // {}}}, 0);
    } else {
        delete $self->{saved}{$call->{key}};
    }
    return;
}

# --- carrying it out ---

sub carry_out($self, $call) {
    my $account = $self->{account};
    Billing::Stripe::Clock::settle($account);
    $self->guarded($call, sub {
        my ($route, @ids) = $self->route($call);
        my $params = $self->checked($route, $call->{params});
        local $account->{request} = {id => $call->{id}, idempotency_key => $call->{method} eq 'POST' ? $call->{key} : undef};
        local $account->{request_version} = $call->{version};
        my $object = $route->{code}->($account, $params, @ids);
        my $version = $call->{path} =~ m{^/v1/events} ? $account->{version} : $call->{version};    # events have a version of their own
        $object = Billing::Stripe::Expand::expand($account, $object, @{$params->{expand} // []});
        @$call{qw(status answer)} = (200, encode_json(Billing::Stripe::Versions::render($account, $object, $version)));
        $call->{seen}{answer_id} = $object->{id};
        return 1;
    });
    Billing::Stripe::Clock::settle($account);
    $self->keep($call, $call->{status} < 400 || $call->{status} == 402 || $call->{status} >= 500);
    return;
}

sub route($self, $call) {
    for my $route ($self->{routes}->@*) {
        next if $route->{method} ne $call->{method};
        my @ids = $call->{path} =~ $route->{pattern} or next;
        $call->{seen}{route} = "$route->{method} $route->{path}";
        return ($route, $route->{path} =~ /:id/ ? @ids : ());
    }
    refuse("Unrecognized request URL ($call->{method}: $call->{path}). Please see https://stripe.com/docs or we can help at "
        . 'https://support.stripe.com/. (Or the stand-in does not model it.)', status => 404);
}

# First by what Stripe knows, then by what is modelled here.
sub checked($self, $route, $params) {
    my $own = $route->{schema};
    return check($own, $params) if !$self->{schemas};
    my $theirs = $self->{schemas}{"$route->{method} $route->{path}"} or die "no schema for $route->{method} $route->{path}\n";
    return check($own, check($theirs, $params, '', empty => 1), '', not_modelled => 1);
}

# Runs $code; a refusal becomes the answer, anything else a 500 that says so.
sub guarded($self, $call, $code) {
    my $result = eval { $code->() };
    my $thrown = $@;
    return $result if !$thrown;
    my $error = caught($thrown);
    if (!$error) {
        print STDERR "$call->{method} $call->{path}: $thrown";
        $error = bless {status => 500, type => 'api_error', message => "The stand-in failed: $thrown"}, 'Billing::Stripe::Error';
    }
    $self->answer_with($call, $error->status, {}, $error->body($call->{id}));
    return 0;
}

sub answer_with($self, $call, $status, $headers, $body) {
    $call->{seen}{error} = $body->{error};
    @$call{qw(status answer answer_headers)} = ($status, encode_json($body), $headers);
    return;
}

# The headers of the answer.
sub headers($self, $call) {
    return {
        'Request-Id' => $call->{id}, 'Stripe-Version' => $call->{version}, 'Content-Type' => 'application/json',
        'Cache-Control' => 'no-cache, no-store',
        (defined $call->{key} ? ('Idempotency-Key' => $call->{key}) : ()), %{$call->{answer_headers} // {}},
    };
}

1;
