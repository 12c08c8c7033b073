# /v1/billing/meter_events: usage reported. Stripe adds it up later and elsewhere; here the sums are read by the control interface.
package Billing::Stripe::Meters;
use v5.36;
use Billing::Stripe::Common qw(expandable);
use Billing::Stripe::Error qw(refuse missing_parameter);
use Billing::Stripe::Schema qw(text integer map_of_text);

my $day = 86400;

sub routes($class) {
    return ['POST', '/v1/billing/meter_events', expandable(event_name => text, identifier => text, timestamp => integer,
        payload => map_of_text), \&create];
}

sub create($account, $params) {
    my $now = $account->now;
    for my $name (qw(event_name payload)) {
        missing_parameter($name) if !defined $params->{$name};
    }
    my $meter = $account->{meters}{$params->{event_name}}
        // refuse("No active meter found for event name: $params->{event_name}", code => 'resource_missing', param => 'event_name');
    my $payload = $params->{payload};
    for my $key (qw(stripe_customer_id value)) {
        missing_parameter("payload[$key]") if !length($payload->{$key} // '');
    }
    refuse("Invalid value: $payload->{value}. It must be a whole number.", param => 'payload[value]') if $payload->{value} !~ /^-?\d+$/;
    my $timestamp = $params->{timestamp} // $now;
    refuse('The timestamp must be within the past 35 calendar days.', param => 'timestamp') if $timestamp < $now - 35 * $day;
    refuse('The timestamp may be at most 5 minutes in the future.', param => 'timestamp') if $timestamp > $now + 300;
    refuse('The identifier may have up to 100 characters.', param => 'identifier') if length($params->{identifier} // '') > 100;
    my $identifier = $params->{identifier} // $account->new_id('', 32);
    my $earlier = $meter->{events}{$identifier};
    refuse("An event already exists with identifier $identifier.", param => 'identifier') if $earlier && $earlier->{created} > $now - $day;
    my %event = (object => 'billing.meter_event', created => $now, event_name => $params->{event_name}, identifier => $identifier,
        livemode => $account->livemode, payload => {%$payload}, timestamp => $timestamp);
    $meter->{events}{$identifier} = \%event;
    $meter->{sums}{$payload->{stripe_customer_id}} += my $value = $payload->{value};    # a copy: the text stays text
    push $meter->{all}->@*, \%event;
    return \%event;
}

# --- the control interface ---

sub make($account, $event_name) {
    $account->{meters}{$event_name} //= {events => {}, sums => {}, all => []};
    return;
}

# The sum reported for a customer.
sub sum($account, $event_name, $customer) { $account->{meters}{$event_name}{sums}{$customer} // 0 }

1;
