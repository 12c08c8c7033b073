# New objects, complete: every field that the type of npm stripe (2026-02-25.clover) says an answer has. t/stripe/shapes.t compiles
# what the stand-in answers against those types. %with overrides.
package Billing::Stripe::Objects;
use v5.36;
use Exporter 'import';
use Mojo::JSON qw(true false);

our @EXPORT_OK = qw(customer product price session line_item subscription subscription_item invoice invoice_line invoice_payment
    payment_intent payment_method charge refund dispute portal_session portal_configuration list_of);

sub nothing(@names) { map { $_ => undef } @names }
sub list_of($url, @data) { {object => 'list', data => \@data, has_more => false, url => $url} }

sub born($account, $type, $prefix, $length = 24) {
    return (id => $account->new_id($prefix, $length), object => $type, created => $account->now, livemode => $account->livemode);
}

sub customer($account, %with) {
    return {
        born($account, 'customer', 'cus_', 14),
        nothing(qw(address currency default_source description discount email name phone shipping test_clock)),
        balance => 0, delinquent => false, invoice_prefix => uc $account->new_id('', 8), metadata => {}, next_invoice_sequence => 1,
        invoice_settings => {nothing(qw(custom_fields default_payment_method footer rendering_options))},
        preferred_locales => [], tax_exempt => 'none', %with,
    };
}

sub product($account, %with) {
    return {
        born($account, 'product', 'prod_', 14), nothing(qw(default_price description package_dimensions shippable statement_descriptor
            tax_code unit_label url)), active => true, images => [], marketing_features => [], metadata => {}, type => 'service',
        updated => $account->now, %with,
    };
}

sub price($account, %with) {
    return {
        born($account, 'price', 'price_1'), nothing(qw(custom_unit_amount lookup_key nickname recurring tiers_mode transform_quantity)),
        active => true, billing_scheme => 'per_unit', metadata => {}, tax_behavior => 'unspecified', %with,
        type => $with{recurring} ? 'recurring' : 'one_time', unit_amount_decimal => "$with{unit_amount}",
    };
}

# The old plan object that still comes along with an item's price.
sub plan_of($price) {
    return {
        object => 'plan', amount => $price->{unit_amount}, amount_decimal => $price->{unit_amount_decimal},
        (map { $_ => $price->{$_} } qw(id active billing_scheme created currency livemode metadata nickname product tiers_mode)),
        (map { $_ => $price->{recurring}{$_} } qw(interval interval_count meter trial_period_days usage_type)), transform_usage => undef,
    };
}

sub session($account, %with) {
    my $mode = $account->mode_name;
    return {
        born($account, 'checkout.session', "cs_${mode}_a1", 56), nothing(qw(adaptive_pricing after_expiration allow_promotion_codes
            billing_address_collection cancel_url client_reference_id client_secret collected_information consent consent_collection
            currency_conversion customer customer_account customer_creation customer_details customer_email discounts invoice
            invoice_creation locale origin_context payment_intent payment_link payment_method_collection permissions recovered_from
            saved_payment_method_options setup_intent shipping_address_collection shipping_cost submit_type subscription wallet_options)),
        automatic_tax => {enabled => false, liability => undef, provider => undef, status => undef}, custom_fields => [],
        custom_text => {nothing(qw(after_submit shipping_address submit terms_of_service_acceptance))}, metadata => {},
        payment_method_configuration_details => {id => 'pmc_1StandIn', parent => undef}, payment_method_options => {},
        payment_method_types => ['card'], payment_status => 'unpaid', phone_number_collection => {enabled => false}, shipping_options => [],
        status => 'open', total_details => {amount_discount => 0, amount_shipping => 0, amount_tax => 0}, ui_mode => 'hosted', %with,
    };
}

sub line_item($account, $price, $quantity, $name) {
    my $amount = $price->{unit_amount} * $quantity;
    return {
        id => $account->new_id('li_1'), object => 'item', adjustable_quantity => undef, amount_discount => 0, amount_subtotal => $amount,
        amount_tax => 0, amount_total => $amount, currency => $price->{currency}, description => $name, metadata => {}, price => $price,
        quantity => $quantity,
    };
}

sub subscription($account, %with) {
    my $now = $account->now;
    return {
        born($account, 'subscription', 'sub_1'),
        nothing(qw(application application_fee_percent billing_cycle_anchor_config billing_thresholds cancel_at canceled_at
            customer_account days_until_due default_payment_method default_source description ended_at latest_invoice
            next_pending_invoice_item_invoice on_behalf_of pause_collection pending_invoice_item_interval pending_setup_intent
            pending_update schedule test_clock transfer_data trial_end trial_start)),
        automatic_tax => {disabled_reason => undef, enabled => false, liability => undef}, billing_cycle_anchor => $now,
        billing_mode => {flexible => undef, type => 'classic'}, cancel_at_period_end => false,
        cancellation_details => {comment => undef, feedback => undef, reason => undef}, collection_method => 'charge_automatically',
        default_tax_rates => [], discounts => [], invoice_settings => {account_tax_ids => undef, issuer => {type => 'self'}},
        metadata => {},
        payment_settings => {payment_method_options => undef, payment_method_types => undef, save_default_payment_method => 'off'},
        start_date => $now, status => 'incomplete', trial_settings => {end_behavior => {missing_payment_method => 'create_invoice'}}, %with,
    };
}

sub subscription_item($account, $subscription_id, $price, $quantity, $start, $end) {
    return {
        id => $account->new_id('si_', 14), object => 'subscription_item', billing_thresholds => undef, created => $account->now,
        current_period_start => $start, current_period_end => $end, discounts => [], metadata => {}, plan => plan_of($price),
        price => $price, quantity => $quantity, subscription => $subscription_id, tax_rates => [],
    };
}

sub invoice($account, %with) {
    return {
        born($account, 'invoice', 'in_1'), nothing(qw(account_tax_ids application automatically_finalizes_at custom_fields customer_account
            customer_address customer_phone customer_shipping default_payment_method default_source description due_date effective_at
            ending_balance footer from_invoice hosted_invoice_url invoice_pdf last_finalization_error latest_revision next_payment_attempt
            number on_behalf_of parent receipt_number rendering shipping_cost shipping_details statement_descriptor test_clock
            webhooks_delivered_at)),
        account_country => 'US', account_name => 'Stand-in', amount_due => 0, amount_overpaid => 0, amount_paid => 0, amount_remaining => 0,
        amount_shipping => 0, attempt_count => 0, attempted => false, auto_advance => true,
        automatic_tax => {nothing(qw(disabled_reason liability provider status)), enabled => false},
        collection_method => 'charge_automatically',
        customer_tax_exempt => 'none', customer_tax_ids => [], default_tax_rates => [], discounts => [], issuer => {type => 'self'},
        metadata => {},
        payment_settings => {nothing(qw(default_mandate payment_method_options payment_method_types))},
        post_payment_credit_notes_amount => 0,
        pre_payment_credit_notes_amount => 0, starting_balance => 0, status => 'draft',
        status_transitions => {nothing(qw(finalized_at marked_uncollectible_at paid_at voided_at))},
        subscription => undef,    # Stripe's own examples still carry it: null is absent
        subtotal => 0, subtotal_excluding_tax => 0, total => 0, total_discount_amounts => [], total_excluding_tax => 0,
        total_pretax_credit_amounts => [], total_taxes => [], %with,
    };
}

# An item's line: for the period given, or a proration.
sub invoice_line($account, $invoice_id, $subscription_id, $item, %with) {
    return {
        id => $account->new_id('il_1'), object => 'line_item', currency => $item->{price}{currency}, discount_amounts => [],
        discountable => true,
        discounts => [], invoice => $invoice_id, livemode => $account->livemode, metadata => {}, pretax_credit_amounts => [],
        quantity => $item->{quantity}, subscription => undef, subtotal => $with{amount}, taxes => [],
        parent => {
            type => 'subscription_item_details', invoice_item_details => undef,
            subscription_item_details => {
                invoice_item => undef, proration => $with{proration} ? true : false, proration_details => {credited_items => undef},
                subscription => $subscription_id, subscription_item => $item->{id},
            },
        },
        pricing => {
            type => 'price_details', unit_amount_decimal => $item->{price}{unit_amount_decimal},
            price_details => {price => $item->{price}{id}, product => $item->{price}{product}},
        },
        map { $_ => $with{$_} } qw(amount description period),
    };
}

sub invoice_payment($account, $invoice, $payment_intent, %with) {
    return {
        born($account, 'invoice_payment', 'inpay_1'), amount_paid => undef, amount_requested => $invoice->{amount_due},
        currency => $invoice->{currency},
        invoice => $invoice->{id}, is_default => true, payment => {type => 'payment_intent', payment_intent => $payment_intent->{id}},
        status => 'open', status_transitions => {canceled_at => undef, paid_at => undef}, %with,
    };
}

sub payment_intent($account, %with) {
    my %born = born($account, 'payment_intent', 'pi_3');
    return {
        %born, nothing(qw(application application_fee_amount automatic_payment_methods canceled_at cancellation_reason customer
            customer_account description excluded_payment_method_types last_payment_error latest_charge next_action on_behalf_of
            payment_method payment_method_configuration_details processing receipt_email review setup_future_usage shipping source
            statement_descriptor statement_descriptor_suffix transfer_data transfer_group)),
        amount_capturable => 0, amount_details => {tip => {}}, amount_received => 0, capture_method => 'automatic',
        client_secret => "$born{id}_secret_" . $account->new_id('', 25), confirmation_method => 'automatic', metadata => {},
        payment_method_options => {card => {nothing(qw(installments mandate_options network)), request_three_d_secure => 'automatic'}},
        payment_method_types => ['card'], status => 'requires_payment_method', %with,
    };
}

my %nobody = (address => {nothing(qw(city country line1 line2 postal_code state))}, nothing(qw(email name phone tax_id)));

sub payment_method($account, %with) {
    return {
        born($account, 'payment_method', 'pm_1'), allow_redisplay => 'limited', billing_details => {%nobody}, customer => undef,
        customer_account => undef,
        metadata => {}, type => 'card',
        card => {
            brand => 'visa', checks => {address_line1_check => undef, address_postal_code_check => undef, cvc_check => 'pass'},
            country => 'US',
            display_brand => 'visa', exp_month => 12, exp_year => 2040, fingerprint => $account->new_id('', 16), funding => 'credit',
            generated_from => undef, last4 => '4242', networks => {available => ['visa'], preferred => undef},
            regulated_status => 'unregulated',
            three_d_secure_usage => {supported => true}, wallet => undef,
        }, %with,
    };
}

sub charge($account, %with) {
    return {
        born($account, 'charge', 'ch_3'), nothing(qw(application application_fee application_fee_amount balance_transaction customer
            description failure_balance_transaction failure_code failure_message on_behalf_of payment_intent payment_method receipt_email
            receipt_number receipt_url review shipping source source_transfer statement_descriptor statement_descriptor_suffix
            transfer_data transfer_group)),
        amount_captured => 0, amount_refunded => 0, billing_details => {%nobody}, calculated_statement_descriptor => 'STAND-IN',
        captured => true,
        disputed => false, fraud_details => {}, metadata => {}, paid => true, refunded => false, status => 'succeeded',
        outcome => {nothing(qw(advice_code network_advice_code network_decline_code reason)), network_status => 'approved_by_network',
            risk_level => 'normal', risk_score => 1, seller_message => 'Payment complete.', type => 'authorized'},
        payment_method_details => {
            type => 'card',
            card => {
                nothing(qw(authorization_code installments mandate network_transaction_id three_d_secure wallet)),
                amount_authorized => $with{amount}, brand => 'visa', country => 'US', exp_month => 12, exp_year => 2040,
                checks => {address_line1_check => undef, address_postal_code_check => undef, cvc_check => 'pass'},
                extended_authorization => {status => 'disabled'}, fingerprint => $account->new_id('', 16), funding => 'credit',
                incremental_authorization => {status => 'unavailable'}, last4 => '4242', multicapture => {status => 'unavailable'},
                network => 'visa', network_token => {used => false},
                overcapture => {maximum_amount_capturable => $with{amount}, status => 'unavailable'},
                regulated_status => 'unregulated',
            },
        }, %with,
    };
}

sub refund($account, %with) {
    my %born = born($account, 'refund', 're_3');
    delete $born{livemode};
    return {
        %born, nothing(qw(balance_transaction reason receipt_number source_transfer_reversal transfer_reversal)), metadata => {},
        status => 'succeeded',
        destination_details => {
            type => 'card',
            card => {reference => '', reference_status => 'pending', reference_type => 'acquirer_reference_number', type => 'refund'},
        },
        %with,
    };
}

my @evidence = qw(access_activity_log billing_address cancellation_policy cancellation_policy_disclosure cancellation_rebuttal
    customer_communication customer_email_address customer_name customer_purchase_ip customer_signature duplicate_charge_documentation
    duplicate_charge_explanation duplicate_charge_id product_description receipt refund_policy refund_policy_disclosure
    refund_refusal_explanation service_date service_documentation shipping_address shipping_carrier shipping_date shipping_documentation
    shipping_tracking_number uncategorized_file uncategorized_text);

sub dispute($account, %with) {
    return {
        born($account, 'dispute', 'du_1'), balance_transactions => [], enhanced_eligibility_types => [],
        evidence => {nothing(@evidence), enhanced_evidence => {}},
        evidence_details => {due_by => $account->now + 9 * 86400, enhanced_eligibility => {}, has_evidence => false, past_due => false,
            submission_count => 0},
        is_charge_refundable => true, metadata => {}, reason => 'fraudulent', status => 'needs_response', %with,
    };
}

sub portal_session($account, %with) {
    return {born($account, 'billing_portal.session', 'bps_1'), nothing(qw(customer_account flow locale on_behalf_of return_url)), %with};
}

sub portal_configuration($account, %with) {
    return {
        born($account, 'billing_portal.configuration', 'bpc_1'), nothing(qw(application default_return_url name)), active => true,
        business_profile => {nothing(qw(headline privacy_policy_url terms_of_service_url))}, is_default => false,
        login_page => {enabled => false, url => undef},
        metadata => {}, updated => $account->now,
        features => {
            customer_update => {allowed_updates => ['email', 'tax_id'], enabled => true}, invoice_history => {enabled => true},
            payment_method_update => {enabled => true, payment_method_configuration => undef},
            subscription_cancel => {
                cancellation_reason => {enabled => false, options => [qw(too_expensive missing_features switched_service unused other)]},
                enabled => true, mode => 'at_period_end', proration_behavior => 'none',
            },
            subscription_update => {
                billing_cycle_anchor => 'unchanged', default_allowed_updates => ['price'], enabled => true, products => [],
                proration_behavior => 'create_prorations', schedule_at_period_end => {conditions => []},
                trial_update_behavior => 'end_trial',
            },
        }, %with,
    };
}

1;
